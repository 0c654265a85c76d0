using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Threading.Channels;
using Nacre.Contracts;

namespace Nacre.Player.Machines;

/// <summary>QEMU's control protocol (QMP) over a unix socket: one command at a time, events aside.</summary>
internal sealed class Qmp : IAsyncDisposable
{
    /// <summary>Prevents a mad peer from filling memory with one line.</summary>
    private const int MaxLine = 4 * 1024 * 1024;

    private readonly JsonLines lines;
    private readonly SemaphoreSlim turn = new(1, 1);
    private readonly Channel<JsonNode> replies = Channel.CreateBounded<JsonNode>(16);
    private readonly Task reading;
    private long commands;

    private Qmp(JsonLines lines)
    {
        this.lines = lines;
        reading = ReadAsync();
    }

    /// <summary>Raised for each event, on the reading task: (name, data).</summary>
    public event Action<string, JsonNode?>? EventRaised;

    /// <summary>Connects and negotiates.</summary>
    public static async Task<Qmp> ConnectAsync(string socketPath, CancellationToken cancellationToken)
    {
        var lines = await JsonLines.ConnectAsync(socketPath, MaxLine, cancellationToken).ConfigureAwait(false);
        Qmp qmp;
        try
        {
            _ = await lines.ReadAsync(cancellationToken).ConfigureAwait(false) ?? throw Lost(null);
            qmp = new Qmp(lines);
        }
        catch
        {
            lines.Dispose();
            throw;
        }

        try
        {
            await qmp.ExecuteAsync("qmp_capabilities", null, cancellationToken).ConfigureAwait(false);
            return qmp;
        }
        catch
        {
            await qmp.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Executes a command and returns what it returned.</summary>
    /// <exception cref="NacreException">QemuFailed: QEMU refused, or is gone.</exception>
    public async Task<JsonNode?> ExecuteAsync(string command, JsonObject? arguments, CancellationToken cancellationToken)
    {
        await turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            var id = ++commands;
            var request = new JsonObject { ["execute"] = command, ["id"] = id };
            if (arguments is not null)
            {
                request["arguments"] = arguments;
            }

            await lines.WriteAsync(request, cancellationToken).ConfigureAwait(false);
            JsonNode reply;
            do
            {
                // Before this command's reply there may be that of one whose sender did not wait for it.
                reply = await replies.Reader.ReadAsync(cancellationToken).ConfigureAwait(false);
            }
            while (reply["id"] is not JsonValue value || !value.TryGetValue<long>(out var answered) || answered != id);
            return reply["error"] is { } error
                ? throw new NacreException(ErrorCatalogue.QemuFailed, $"QEMU refused '{command}': {error["desc"]}")
                : reply["return"];
        }
        catch (Exception exception) when (exception is IOException or SocketException or ChannelClosedException)
        {
            throw Lost(exception);
        }
        finally
        {
            turn.Release();
        }
    }

    public async ValueTask DisposeAsync()
    {
        lines.Dispose();
        await reading.ConfigureAwait(false);
        turn.Dispose();
    }

    private static NacreException Lost(Exception? cause) => new(ErrorCatalogue.QemuFailed, "QEMU closed its control connection", cause);

    private async Task ReadAsync()
    {
        try
        {
            while (await lines.ReadAsync(CancellationToken.None).ConfigureAwait(false) is { } message)
            {
                if (message["event"] is { } name)
                {
                    EventRaised?.Invoke(name.GetValue<string>(), message["data"]);
                }
                else if (!replies.Writer.TryWrite(message))
                {
                    break; // more replies than commands: not a peer to go on with
                }
            }
        }
        catch (Exception exception) when (exception is IOException or SocketException or ObjectDisposedException or JsonException)
        {
            // The connection's end; whoever waits is told by the closed channel.
        }
        finally
        {
            replies.Writer.TryComplete();
        }
    }
}
