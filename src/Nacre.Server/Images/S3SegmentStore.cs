using System.Net;
using System.Runtime.CompilerServices;
using Amazon.Runtime;
using Amazon.S3;
using Amazon.S3.Model;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>
/// Segments as objects of a bucket, under the same paths as in a folder: <c>ab/abcdef…</c>. So the bucket, or a CDN before it, can be an origin. What is uploaded waits in a file of
/// the data directory until it is whole and has the right hash; an object appears at once or not at all.
/// </summary>
internal sealed class S3SegmentStore : ISegmentStore, IDisposable
{
    private readonly AmazonS3Client client;
    private readonly string bucket;
    private readonly string address;
    private readonly string incoming;

    public S3SegmentStore(S3Options options, DataDirectory directory)
    {
        bucket = options.Name;
        address = options.Bucket.AbsoluteUri;
        incoming = Path.Combine(directory.Segments, "incoming");
        client = new AmazonS3Client(new BasicAWSCredentials(options.AccessKey, options.SecretKey), new AmazonS3Config
        {
            ServiceURL = options.Service,
            AuthenticationRegion = options.Region,
            ForcePathStyle = true,
            UseHttp = options.Bucket.Scheme == "http",

            // Newer checksums are Amazon's alone; a segment has a hash of its own, which is compared before and after.
            RequestChecksumCalculation = RequestChecksumCalculation.WHEN_REQUIRED,
            ResponseChecksumValidation = ResponseChecksumValidation.WHEN_REQUIRED,
            MaxErrorRetry = 3,
            Timeout = TimeSpan.FromSeconds(60),
        });
    }

    public async ValueTask PrepareAsync(CancellationToken cancellationToken)
    {
        Directory.CreateDirectory(incoming);
        foreach (var file in Directory.EnumerateFiles(incoming))
        {
            File.Delete(file);
        }

        await TryAsync(() => client.ListObjectsV2Async(new ListObjectsV2Request { BucketName = bucket, MaxKeys = 1 }, cancellationToken), null);
    }

    public async ValueTask<long?> FindLengthAsync(string name, CancellationToken cancellationToken)
    {
        var found = await TryAsync(() => client.GetObjectMetadataAsync(bucket, StoreOrigins.PathOf(name), cancellationToken), HttpStatusCode.NotFound);
        return found?.ContentLength;
    }

    public async IAsyncEnumerable<StoredSegment> ListAsync(string firstDigits, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var request = new ListObjectsV2Request { BucketName = bucket, Prefix = firstDigits + "/" };
        do
        {
            var page = (await TryAsync(() => client.ListObjectsV2Async(request, cancellationToken), null))!;
            foreach (var one in page.S3Objects ?? [])
            {
                if (one.Key[(firstDigits.Length + 1)..] is var name && Names.IsSegmentName(name))
                {
                    yield return new StoredSegment(name, one.Size ?? 0, one.LastModified?.ToUniversalTime() ?? DateTimeOffset.MaxValue);
                }
            }

            request.ContinuationToken = page.NextContinuationToken;
        }
        while (request.ContinuationToken is not null);
    }

    public async ValueTask DeleteAsync(string name, CancellationToken cancellationToken) =>
        await TryAsync(() => client.DeleteObjectAsync(bucket, StoreOrigins.PathOf(name), cancellationToken), HttpStatusCode.NotFound);

    public async ValueTask<Stream?> OpenAsync(string name, CancellationToken cancellationToken) =>
        await FindLengthAsync(name, cancellationToken) is { } length ? new ObjectStream(this, StoreOrigins.PathOf(name), length) : null;

    public ValueTask<ISegmentWriter> CreateAsync(string name, CancellationToken cancellationToken) =>
        ValueTask.FromResult<ISegmentWriter>(new Writer(this, StoreOrigins.PathOf(name)));

    public void Dispose() => client.Dispose();

    /// <summary>Asks the service; null where it answers with the status that is expected of what is not there.</summary>
    /// <exception cref="NacreException">ServerUnreachable: the service does not answer or refuses.</exception>
    private async Task<T?> TryAsync<T>(Func<Task<T>> ask, HttpStatusCode? absent)
        where T : class
    {
        try
        {
            return await ask();
        }
        catch (AmazonS3Exception exception) when (exception.StatusCode == absent)
        {
            return null;
        }
        catch (Exception exception) when (exception is AmazonServiceException or AmazonClientException or HttpRequestException or IOException or TimeoutException)
        {
            throw new NacreException(ErrorCatalogue.ServerUnreachable, $"the segments' bucket {address} can't be used: {exception.Message}", exception);
        }
    }

    private sealed class Writer : ISegmentWriter
    {
        private readonly S3SegmentStore store;
        private readonly string key;
        private readonly FileStream file;

        public Writer(S3SegmentStore store, string key)
        {
            this.store = store;
            this.key = key;
            file = new FileStream(Path.Combine(store.incoming, Text.RandomId()), new FileStreamOptions
            {
                Mode = FileMode.CreateNew,
                Access = FileAccess.ReadWrite,
                Options = FileOptions.Asynchronous | FileOptions.DeleteOnClose,
                BufferSize = 0,
            });
        }

        public ValueTask WriteAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken) => file.WriteAsync(bytes, cancellationToken);

        public async ValueTask CommitAsync(CancellationToken cancellationToken)
        {
            file.Position = 0;
            var request = new PutObjectRequest
            {
                BucketName = store.bucket,
                Key = key,
                InputStream = file,
                AutoCloseStream = false,
                UseChunkEncoding = false,
                ContentType = "application/octet-stream",
            };
            request.Headers.CacheControl = "public, max-age=31536000, immutable";
            await store.TryAsync(() => store.client.PutObjectAsync(request, cancellationToken), null);
        }

        public ValueTask DisposeAsync() => file.DisposeAsync();
    }

    /// <summary>An object to read from any place: each first read after a seek asks for the rest from there.</summary>
    private sealed class ObjectStream(S3SegmentStore store, string key, long length) : Stream
    {
        private GetObjectResponse? response;
        private long position;

        public override bool CanRead => true;

        public override bool CanSeek => true;

        public override bool CanWrite => false;

        public override long Length => length;

        public override long Position
        {
            get => position;
            set => Seek(value, SeekOrigin.Begin);
        }

        public override long Seek(long offset, SeekOrigin origin)
        {
            var target = origin switch { SeekOrigin.Begin => offset, SeekOrigin.Current => position + offset, _ => length + offset };
            ArgumentOutOfRangeException.ThrowIfNegative(target, nameof(offset));
            if (target != position)
            {
                response?.Dispose();
                response = null;
                position = target;
            }

            return position;
        }

        public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            if (position >= length || buffer.IsEmpty)
            {
                return 0;
            }

            response ??= await store.TryAsync(
                    () => store.client.GetObjectAsync(new GetObjectRequest { BucketName = store.bucket, Key = key, ByteRange = new ByteRange(position, length - 1) }, cancellationToken), HttpStatusCode.NotFound)
                ?? throw new FileNotFoundException("the segment went while it was read");
            var read = await response.ResponseStream.ReadAsync(buffer, cancellationToken);
            position += read;
            return read;
        }

        public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) => ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException("asynchronous only");

        public override void Flush()
        {
        }

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        protected override void Dispose(bool disposing)
        {
            response?.Dispose();
            base.Dispose(disposing);
        }
    }
}
