using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using Nacre.Contracts;

namespace Nacre.Client;

public sealed partial class NacreClient
{
    /// <summary>Above this the server is asked first whether it wants the bytes.</summary>
    private const int AskFirst = 64 * 1024;

    /// <summary>The longest segment that <see cref="DownloadSegmentAsync"/> takes into memory unless told otherwise.</summary>
    public const long LargestSegment = 64 * 1024 * 1024;

    /// <summary>Stores a segment. The same bytes again are fine.</summary>
    public async Task UploadSegmentAsync(string name, ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken = default)
    {
        var digest = $"sha-256=:{Convert.ToBase64String(SHA256.HashData(bytes.Span))}:";
        await transport.TryAsync(3, () =>
        {
            var request = new HttpRequestMessage(HttpMethod.Put, transport.At("v1/segments/" + Segment(name))) { Content = new ReadOnlyMemoryContent(bytes) };
            request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/octet-stream");
            request.Content.Headers.TryAddWithoutValidation("Content-Digest", digest);
            request.Headers.ExpectContinue = bytes.Length > AskFirst;
            transport.Authorize(request, []);
            return request;
        }, static (_, _) => Task.FromResult(true), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Fills <paramref name="destination"/> with the segment's bytes from <paramref name="offset"/> on; on failure its content is undefined.</summary>
    /// <exception cref="NacreException">
    /// <see cref="ErrorCatalogue.NotFound"/>; <see cref="ErrorCatalogue.SegmentTruncated"/>: the origin has fewer bytes;
    /// <see cref="ErrorCatalogue.SegmentNotAuthentic"/>: it sends another range than it was asked for.
    /// </exception>
    public Task DownloadRangeAsync(string name, long offset, Memory<byte> destination, CancellationToken cancellationToken = default)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        if (destination.IsEmpty)
        {
            return Task.CompletedTask;
        }

        var last = checked(offset + destination.Length - 1);
        return transport.TryAsync(3, () =>
        {
            var request = new HttpRequestMessage(HttpMethod.Get, transport.At("v1/segments/" + Segment(name)));
            request.Headers.Range = new RangeHeaderValue(offset, last);
            return request;
        }, async (response, token) =>
        {
            var range = response.Content.Headers.ContentRange;
            if (response.StatusCode != HttpStatusCode.PartialContent || range is not { HasRange: true, Unit: "bytes" } || range.From != offset || range.To > last)
            {
                throw new NacreException(ErrorCatalogue.SegmentNotAuthentic, $"the origin does not send the range of segment {name} that it was asked for");
            }

            if (range.To < last || (response.Content.Headers.ContentLength is { } length && length < destination.Length))
            {
                throw Truncated(name);
            }

            await FillAsync(response, name, destination, token).ConfigureAwait(false);
            return true;
        }, cancellationToken, truncated: () => Truncated(name));
    }

    /// <summary>The whole segment.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="maximumLength">A longer one is refused before it is read.</param>
    /// <param name="cancellationToken">Ends the download.</param>
    /// <exception cref="NacreException">As <see cref="DownloadRangeAsync"/>, and <see cref="ErrorCatalogue.TooLarge"/>.</exception>
    public Task<byte[]> DownloadSegmentAsync(string name, long maximumLength = LargestSegment, CancellationToken cancellationToken = default) =>
        transport.TryAsync(3, () => new HttpRequestMessage(HttpMethod.Get, transport.At("v1/segments/" + Segment(name))), async (response, token) =>
        {
            if (response.StatusCode != HttpStatusCode.OK || response.Content.Headers.ContentLength is not { } length)
            {
                throw new NacreException(ErrorCatalogue.SegmentNotAuthentic, $"the origin does not say how long segment {name} is");
            }

            if (length > Math.Min(maximumLength, Array.MaxLength))
            {
                throw new NacreException(ErrorCatalogue.TooLarge, string.Create(CultureInfo.InvariantCulture, $"segment {name} has {length} bytes, more than {maximumLength}"));
            }

            var bytes = new byte[length];
            await FillAsync(response, name, bytes, token).ConfigureAwait(false);
            return bytes;
        }, cancellationToken, truncated: () => Truncated(name));

    private static async Task FillAsync(HttpResponseMessage response, string name, Memory<byte> destination, CancellationToken cancellationToken)
    {
        var stream = await response.Content.ReadAsStreamAsync(cancellationToken).ConfigureAwait(false);
        await using (stream.ConfigureAwait(false))
        {
            var read = await stream.ReadAtLeastAsync(destination, destination.Length, throwOnEndOfStream: false, cancellationToken).ConfigureAwait(false);
            if (read < destination.Length)
            {
                throw Truncated(name);
            }

            if (await stream.ReadAsync(new byte[1], cancellationToken).ConfigureAwait(false) != 0)
            {
                throw new NacreException(ErrorCatalogue.SegmentNotAuthentic, $"the origin sends more of segment {name} than it was asked for");
            }
        }
    }

    private static NacreException Truncated(string name) => new(ErrorCatalogue.SegmentTruncated, $"the origin has less of segment {name} than there is");

    private static string Segment(string name) => Names.IsSegmentName(name) ? name : throw new NacreException(ErrorCatalogue.NameInvalid, "that is not the name of a segment");
}
