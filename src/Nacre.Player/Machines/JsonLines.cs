using System.IO.Pipelines;
using System.Buffers;
using System.Net.Sockets;
using System.Text.Json.Nodes;

namespace Nacre.Player.Machines;

/// <summary>JSON values, one a line, over a unix socket, with a bound on a line's length.</summary>
internal sealed class JsonLines : IDisposable
{
    private readonly NetworkStream stream;
    private readonly PipeReader reader;
    private readonly int maxLine;

    public JsonLines(Socket socket, int maxLine)
    {
        this.maxLine = maxLine;
        stream = new NetworkStream(socket, ownsSocket: true);
        reader = PipeReader.Create(stream, new StreamPipeReaderOptions(leaveOpen: true));
    }

    public static async Task<JsonLines> ConnectAsync(string socketPath, int maxLine, CancellationToken cancellationToken)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(socketPath), cancellationToken).ConfigureAwait(false);
            return new JsonLines(socket, maxLine);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>The next value; null at the end of the stream.</summary>
    /// <exception cref="IOException">The line is longer than allowed, or the connection broke.</exception>
    /// <exception cref="System.Text.Json.JsonException">The line is not JSON.</exception>
    public async Task<JsonNode?> ReadAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            var result = await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
            if (result.Buffer.PositionOf((byte)'\n') is { } end)
            {
                var line = result.Buffer.Slice(0, end).ToArray();
                reader.AdvanceTo(result.Buffer.GetPosition(1, end));

                // qemu-guest-agent marks a new conversation with 0xFF.
                var text = line.AsMemory(line.AsSpan().LastIndexOf((byte)0xFF) + 1);
                if (text.Span.Trim(" \r\t"u8).IsEmpty)
                {
                    continue;
                }

                return JsonNode.Parse(text.Span);
            }

            if (result.Buffer.Length > maxLine)
            {
                throw new IOException($"a line of more than {maxLine} bytes");
            }

            reader.AdvanceTo(result.Buffer.Start, result.Buffer.End);
            if (result.IsCompleted)
            {
                return null;
            }
        }
    }

    public async Task WriteAsync(JsonNode value, CancellationToken cancellationToken) =>
        await WriteAsync([.. System.Text.Encoding.UTF8.GetBytes(value.ToJsonString()), (byte)'\n'], cancellationToken).ConfigureAwait(false);

    public async Task WriteAsync(byte[] bytes, CancellationToken cancellationToken) =>
        await stream.WriteAsync(bytes, cancellationToken).ConfigureAwait(false);

    public void Dispose() => stream.Dispose();
}
