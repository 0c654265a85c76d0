using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Nodes;
using Nacre.Contracts;
using Nacre.Player.Machines;

namespace Nacre.Player.LivePcs;

/// <summary>
/// The player's local interface: one JSON request and one JSON answer a line, on a unix socket in a folder that only its user can enter.
/// </summary>
internal sealed class ControlSocket : IAsyncDisposable
{
    /// <summary>Commands carry standard input for the guest; more than this is refused.</summary>
    private const int MaxLine = 64 * 1024 * 1024;

    private readonly Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly string path;
    private readonly Func<string, JsonObject, CancellationToken, Task<JsonNode?>> handle;
    private readonly CancellationTokenSource closing = new();
    private readonly Task accepting;

    public ControlSocket(string path, Func<string, JsonObject, CancellationToken, Task<JsonNode?>> handle)
    {
        this.path = path;
        this.handle = handle;
        File.Delete(path);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen(16);
        accepting = AcceptAsync();
    }

    /// <summary>Sends one request to a running player.</summary>
    /// <exception cref="NacreException">NotRunning, or what the player answered.</exception>
    public static async Task<JsonNode?> RequestAsync(string path, string command, JsonObject? arguments, CancellationToken cancellationToken)
    {
        JsonNode answer;
        try
        {
            using var lines = await JsonLines.ConnectAsync(path, MaxLine, cancellationToken).ConfigureAwait(false);
            await lines.WriteAsync(new JsonObject { ["command"] = command, ["arguments"] = arguments ?? [] }, cancellationToken).ConfigureAwait(false);
            answer = await lines.ReadAsync(cancellationToken).ConfigureAwait(false) ?? throw new IOException("the player closed the connection");
        }
        catch (Exception exception) when (exception is SocketException or IOException or JsonException)
        {
            throw new NacreException(ErrorCatalogue.NotRunning, "the LivePC does not run", exception);
        }

        return answer["code"]?.GetValue<string>() is { } code
            ? throw new NacreException(ErrorCatalogue.All.GetValueOrDefault(code, ErrorCatalogue.Internal), answer["message"]?.GetValue<string>() ?? code)
            : answer["result"]?.DeepClone();
    }

    public async ValueTask DisposeAsync()
    {
        await closing.CancelAsync().ConfigureAwait(false);
        listener.Dispose();
        await accepting.ConfigureAwait(false);
        File.Delete(path);
        closing.Dispose();
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                var socket = await listener.AcceptAsync(closing.Token).ConfigureAwait(false);
                _ = ServeAsync(socket);
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // Closing.
        }
    }

    private async Task ServeAsync(Socket socket)
    {
        using var lines = new JsonLines(socket, MaxLine);
        try
        {
            while (await lines.ReadAsync(closing.Token).ConfigureAwait(false) is JsonObject request)
            {
                JsonObject answer;
                try
                {
                    var result = await handle(request["command"]?.GetValue<string>() ?? "", request["arguments"] as JsonObject ?? [], closing.Token).ConfigureAwait(false);
                    answer = new JsonObject { ["result"] = result };
                }
                catch (NacreException exception)
                {
                    answer = new JsonObject { ["code"] = exception.Kind.Code, ["message"] = exception.Message };
                }

                await lines.WriteAsync(answer, closing.Token).ConfigureAwait(false);
            }
        }
        catch (Exception exception) when (exception is IOException or SocketException or JsonException or OperationCanceledException or InvalidOperationException)
        {
            // The other side left, or sent no request.
        }
    }
}
