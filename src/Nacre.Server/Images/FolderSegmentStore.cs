using System.Runtime.CompilerServices;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>Segments as files: <c>segments/ab/abcdef…</c>, written under <c>segments/incoming</c> and renamed when they are whole.</summary>
internal sealed class FolderSegmentStore : ISegmentStore
{
    private readonly string root;
    private readonly string incoming;

    public FolderSegmentStore(DataDirectory directory)
    {
        root = directory.Segments;
        incoming = Path.Combine(root, "incoming");
    }

    public ValueTask PrepareAsync(CancellationToken cancellationToken)
    {
        Directory.CreateDirectory(incoming);
        foreach (var file in Directory.EnumerateFiles(incoming))
        {
            File.Delete(file);
        }

        return ValueTask.CompletedTask;
    }

    public ValueTask<long?> FindLengthAsync(string name, CancellationToken cancellationToken)
    {
        var file = new FileInfo(PathOf(name));
        return ValueTask.FromResult(file.Exists ? file.Length : (long?)null);
    }

    public async IAsyncEnumerable<StoredSegment> ListAsync(string firstDigits, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var folder = new DirectoryInfo(Path.Combine(root, firstDigits));
        foreach (var file in folder.Exists ? folder.EnumerateFiles() : [])
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (Names.IsSegmentName(file.Name))
            {
                yield return new StoredSegment(file.Name, file.Length, file.LastWriteTimeUtc);
            }
        }

        await ValueTask.CompletedTask;
    }

    public ValueTask DeleteAsync(string name, CancellationToken cancellationToken)
    {
        try
        {
            File.Delete(PathOf(name));
        }
        catch (DirectoryNotFoundException)
        {
            // There never was one.
        }

        return ValueTask.CompletedTask;
    }

    public ValueTask<Stream?> OpenAsync(string name, CancellationToken cancellationToken)
    {
        try
        {
            return ValueTask.FromResult<Stream?>(new FileStream(PathOf(name), new FileStreamOptions
            {
                Mode = FileMode.Open,
                Access = FileAccess.Read,
                Share = FileShare.Read | FileShare.Delete,
                Options = FileOptions.Asynchronous,
                BufferSize = 0,
            }));
        }
        catch (Exception exception) when (exception is FileNotFoundException or DirectoryNotFoundException)
        {
            return ValueTask.FromResult<Stream?>(null);
        }
    }

    public ValueTask<ISegmentWriter> CreateAsync(string name, CancellationToken cancellationToken) =>
        ValueTask.FromResult<ISegmentWriter>(new Writer(Path.Combine(incoming, $"{name}.{Text.RandomId()}"), PathOf(name)));

    private string PathOf(string name) => Path.Combine(root, StoreOrigins.PathOf(name));

    private sealed class Writer : ISegmentWriter
    {
        private readonly string temporary;
        private readonly string final;
        private readonly FileStream file;

        public Writer(string temporary, string final)
        {
            this.temporary = temporary;
            this.final = final;
            file = new FileStream(temporary, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, Options = FileOptions.Asynchronous, BufferSize = 0 });
        }

        public ValueTask WriteAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken) => file.WriteAsync(bytes, cancellationToken);

        public async ValueTask CommitAsync(CancellationToken cancellationToken)
        {
            file.Flush(flushToDisk: true);
            await file.DisposeAsync();
            Directory.CreateDirectory(Path.GetDirectoryName(final)!);

            // The rename becomes durable with the database's commit that follows or, if power fails in between, the segment is missing
            // and asked for again: FindMissing looks at the files.
            File.Move(temporary, final, overwrite: true);
        }

        public async ValueTask DisposeAsync()
        {
            await file.DisposeAsync();
            File.Delete(temporary);
        }
    }
}
