using System.Diagnostics;
using System.Net;
using Nacre.Contracts;

namespace Nacre.Client;

public sealed partial class NacreClient
{
    /// <summary>A trust file has to come at least so fast, after the first <see cref="TrustGrace"/>: 1 KiB a second.</summary>
    private const double SlowestTrustBytesPerSecond = 1024;

    /// <summary>How long the first byte of a trust file may take.</summary>
    public TimeSpan TrustGrace { get; init; } = TimeSpan.FromSeconds(15);

    /// <summary>A file of trust metadata; nothing of it is verified here. Neither an endless nor a slow answer holds the caller up.</summary>
    /// <param name="name">The file's name.</param>
    /// <param name="longest">A longer answer is refused, whatever it says of its length.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <returns>Null where there is no such file.</returns>
    /// <exception cref="NacreException">TooLarge; ServerUnreachable: it does not answer, or more slowly than 1 KiB a second.</exception>
    public async Task<byte[]?> FetchTrustFileAsync(string name, int longest, CancellationToken cancellationToken = default)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(TrustGrace);
        try
        {
            return await transport.TryAsync(
                1, () => new HttpRequestMessage(HttpMethod.Get, transport.At("v1/trust/" + Escape(name))),
                (response, token) => ReadBoundedAsync(response, name, longest, left => limit.CancelAfter(left), token), limit.Token).ConfigureAwait(false);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.NotFound)
        {
            return null;
        }
        catch (OperationCanceledException exception) when (!cancellationToken.IsCancellationRequested)
        {
            throw new NacreException(ErrorCatalogue.ServerUnreachable, $"{Server} sends the trust file '{name}' more slowly than it may", exception);
        }
    }

    /// <summary>The trust metadata as the server has it.</summary>
    public Task<TrustOverview> GetTrustAsync(CancellationToken cancellationToken = default) => transport.GetAsync<TrustOverview>("v1/trust", cancellationToken);

    /// <summary>Gives the server a signed file of a role: the next version of <c>root</c>, <c>targets</c> or <c>image.NAME</c>.</summary>
    public Task<TrustOverview> PutTrustFileAsync(string role, string file, CancellationToken cancellationToken = default) =>
        transport.SendAsync<TrustOverview>(HttpMethod.Put, $"v1/trust/{Escape(role)}", new PutTrustFile(file), cancellationToken);

    /// <summary>Has the server make a new online key, which it uses once a root names it.</summary>
    /// <returns>The new key.</returns>
    public Task<PublicKey> RenewOnlineKeyAsync(CancellationToken cancellationToken = default) =>
        transport.SendAsync<PublicKey>(HttpMethod.Post, "v1/trust-key", null, cancellationToken);

    private async Task<byte[]?> ReadBoundedAsync(
        HttpResponseMessage response, string name, int longest, Action<TimeSpan> allow, CancellationToken cancellationToken)
    {
        if (response.StatusCode != HttpStatusCode.OK)
        {
            throw new NacreException(ErrorCatalogue.ServerUnreachable, $"what answers for the trust file '{name}' is not a nacre server");
        }

        var stream = await response.Content.ReadAsStreamAsync(cancellationToken).ConfigureAwait(false);
        await using var _ = stream.ConfigureAwait(false);
        var bytes = new MemoryStream();
        var buffer = new byte[16 * 1024];
        var begun = Stopwatch.GetTimestamp();
        while (await stream.ReadAsync(buffer, cancellationToken).ConfigureAwait(false) is var count and > 0)
        {
            bytes.Write(buffer, 0, count);
            if (bytes.Length > longest)
            {
                throw new NacreException(ErrorCatalogue.TooLarge, $"the trust file '{name}' has more than the {longest} bytes that it may have");
            }

            // What has come buys the time for more.
            var left = TrustGrace + TimeSpan.FromSeconds(bytes.Length / SlowestTrustBytesPerSecond) - Stopwatch.GetElapsedTime(begun);
            allow(left > TimeSpan.Zero ? left : TimeSpan.Zero);
        }

        return bytes.ToArray();
    }
}
