using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;
using System.Threading.Channels;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Player.Clipboard;

/// <summary>
/// The host's end of the guest's clipboard: what SPICE's client would be for its agent (spice-vdagent). Direction and size are decided here: where nothing may come out, the guest is never asked, and what it sends
/// unasked is dropped; where nothing may go in, it is never offered, nor given.
/// </summary>
internal sealed class ClipboardChannel : IAsyncDisposable
{
    /// <summary>Bytes of the longest text that any policy lets pass, with what is around it.</summary>
    private const int LongestMessage = (4 * 1_048_576) + 16;

    /// <summary>Messages that wait to be sent. A guest that asks and does not read is given up.</summary>
    private const int MostWaiting = 64;

    private const int MostNumbers = 64;

    private static readonly TimeSpan AnswerLimit = TimeSpan.FromSeconds(15);
    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(2);

    private readonly string path;
    private readonly Func<Policy> policy;
    private readonly TimeProvider time;
    private readonly CancellationTokenSource ending = new();
    private readonly Lock gate = new();
    private readonly SemaphoreSlim fetching = new(1, 1);
    private readonly Task running;
    private Channel<byte[]>? sending;
    private bool isThere, hasSelection, guestHasText;
    private string? offered;
    private TaskCompletionSource<byte[]?>? awaited;

    /// <param name="path">QEMU's end of the agent's port.</param>
    /// <param name="policy">What holds now.</param>
    /// <param name="time">The clock.</param>
    public ClipboardChannel(string path, Func<Policy> policy, TimeProvider time)
    {
        this.path = path;
        this.policy = policy;
        this.time = time;
        running = RunAsync();
    }

    /// <summary>Offers text to the guest, which takes it when somebody pastes.</summary>
    /// <exception cref="NacreException">Forbidden, TooLarge, NoAgent.</exception>
    public void Offer(string text)
    {
        if (policy().Get(Settings.ClipboardIn) == ClipboardMode.Off)
        {
            throw new NacreException(ErrorCatalogue.Forbidden, $"your company does not let anything be copied into the guest ('{Settings.ClipboardIn}' is off)");
        }

        RequireFits(text.Length);
        lock (gate)
        {
            RequireAgent();
            offered = text;
            guestHasText = false;
            Send(VdAgent.Grab, VdAgent.Numbers(VdAgent.Utf8));
        }
    }

    /// <summary>Fetches the text that was copied in the guest.</summary>
    /// <exception cref="NacreException">Forbidden, TooLarge, NoAgent, NotFound: none was; GuestFailed: the agent does not answer, or not with text.</exception>
    public async Task<string> FetchAsync(CancellationToken cancellationToken)
    {
        RequireMayComeOut();
        await fetching.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            TaskCompletionSource<byte[]?> answer;
            lock (gate)
            {
                RequireAgent();
                if (!guestHasText)
                {
                    throw new NacreException(ErrorCatalogue.NotFound, "no text was copied in the guest");
                }

                awaited = answer = new TaskCompletionSource<byte[]?>(TaskCreationOptions.RunContinuationsAsynchronously);
                Send(VdAgent.Request, VdAgent.Numbers(VdAgent.Utf8));
            }

            var bytes = await answer.Task.WaitAsync(AnswerLimit, time, cancellationToken).ConfigureAwait(false)
                ?? throw new NacreException(ErrorCatalogue.TooLarge, "what was copied in the guest is longer than anything that may be copied");
            RequireMayComeOut(); // it may have changed meanwhile
            var text = new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(bytes);
            RequireFits(text.Length);
            return text;
        }
        catch (Exception exception) when (exception is TimeoutException or DecoderFallbackException or ArgumentException)
        {
            throw new NacreException(ErrorCatalogue.GuestFailed, "the guest's clipboard agent did not answer with text", exception);
        }
        finally
        {
            lock (gate)
            {
                awaited = null;
            }

            fetching.Release();
        }
    }

    /// <summary>Takes back what was offered, where it may no longer go in.</summary>
    public void Enforce()
    {
        lock (gate)
        {
            if (offered is { } text && !MayGoIn(text))
            {
                offered = null;
                Send(VdAgent.Release, []);
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        await ending.CancelAsync().ConfigureAwait(false);
        await running.ConfigureAwait(false);
        fetching.Dispose();
        ending.Dispose();
    }

    /// <summary>Deals with a message of the guest's agent.</summary>
    internal void Hear(AgentMessage untrusted)
    {
        lock (gate)
        {
            if (untrusted.Type == VdAgent.AnnounceCapabilities)
            {
                HearCapabilities(untrusted.Data);
                return;
            }

            // The selection of which it is, and three bytes that mean nothing: only the clipboard's is ours.
            var data = untrusted.Data.AsSpan();
            if (hasSelection && !untrusted.IsTooLong)
            {
                if (data.Length < 4 || data[0] != 0)
                {
                    return;
                }

                data = data[4..];
            }

            switch (untrusted.Type)
            {
                case VdAgent.Grab:
                    offered = null;
                    guestHasText = false;
                    for (var i = 0; i + 4 <= data.Length && i < 4 * MostNumbers; i += 4)
                    {
                        guestHasText |= BinaryPrimitives.ReadUInt32LittleEndian(data[i..]) == VdAgent.Utf8;
                    }

                    break;
                case VdAgent.Release:
                    guestHasText = false;
                    break;
                case VdAgent.Request:
                    var isText = data.Length >= 4 && BinaryPrimitives.ReadUInt32LittleEndian(data) == VdAgent.Utf8;
                    Send(VdAgent.Clipboard, isText && offered is { } text && MayGoIn(text) ? [.. VdAgent.Numbers(VdAgent.Utf8), .. Encoding.UTF8.GetBytes(text)] : VdAgent.Numbers(VdAgent.Nothing));
                    break;
                case VdAgent.Clipboard when awaited is { } waiting:
                    awaited = null;
                    if (untrusted.IsTooLong)
                    {
                        waiting.TrySetResult(null);
                    }
                    else if (data.Length >= 4 && BinaryPrimitives.ReadUInt32LittleEndian(data) == VdAgent.Utf8)
                    {
                        waiting.TrySetResult(data[4..].ToArray());
                    }
                    else
                    {
                        waiting.TrySetException(new NacreException(ErrorCatalogue.GuestFailed, "the guest's clipboard agent has no text after all"));
                    }

                    break;
            }
        }
    }

    private void HearCapabilities(ReadOnlySpan<byte> data)
    {
        if (data.Length < 8)
        {
            return;
        }

        isThere = true;
        hasSelection = (BinaryPrimitives.ReadUInt32LittleEndian(data[4..]) & (1u << VdAgent.Selection)) != 0;
        if (BinaryPrimitives.ReadUInt32LittleEndian(data) != 0)
        {
            // An agent that begins: it knows nothing of what was said before.
            guestHasText = false;
            Announce(wantsAnswer: false);
            if (offered is not null)
            {
                Send(VdAgent.Grab, VdAgent.Numbers(VdAgent.Utf8));
            }
        }
    }

    private bool MayGoIn(string text) => policy().Get(Settings.ClipboardIn) == ClipboardMode.Text && text.Length <= policy().Get(Settings.ClipboardMaxChars);

    private void RequireMayComeOut()
    {
        if (policy().Get(Settings.ClipboardOut) == ClipboardMode.Off)
        {
            throw new NacreException(ErrorCatalogue.Forbidden, $"your company does not let anything be copied out of the guest ('{Settings.ClipboardOut}' is off)");
        }
    }

    private void RequireFits(int characters)
    {
        if (characters > policy().Get(Settings.ClipboardMaxChars))
        {
            throw new NacreException(ErrorCatalogue.TooLarge, $"{characters} characters are more than your company lets be copied at a time ({policy().Get(Settings.ClipboardMaxChars)})");
        }
    }

    private void RequireAgent()
    {
        if (!isThere)
        {
            throw new NacreException(ErrorCatalogue.NoAgent, "the guest has no clipboard agent that answers (spice-vdagent)");
        }
    }

    private void Announce(bool wantsAnswer) => SendRaw(VdAgent.AnnounceCapabilities, VdAgent.Numbers(wantsAnswer ? 1u : 0u, (1u << VdAgent.ByDemand) | (1u << VdAgent.Selection)));

    private void Send(uint type, ReadOnlySpan<byte> data) => SendRaw(type, hasSelection ? [0, 0, 0, 0, .. data] : data);

    private void SendRaw(uint type, ReadOnlySpan<byte> data)
    {
        if (sending is { } channel && !channel.Writer.TryWrite(VdAgent.Encode(type, data)))
        {
            channel.Writer.TryComplete(new InvalidDataException("the guest's clipboard agent asks and does not read"));
        }
    }

    /// <summary>Connects, and again after whatever ended it.</summary>
    private async Task RunAsync()
    {
        try
        {
            while (true)
            {
                try
                {
                    await ConverseAsync().ConfigureAwait(false);
                }
                catch (Exception exception) when (exception is IOException or SocketException or InvalidDataException)
                {
                    // It left, or spoke nonsense.
                }

                lock (gate)
                {
                    (isThere, hasSelection, guestHasText, sending) = (false, false, false, null);
                    awaited?.TrySetException(new NacreException(ErrorCatalogue.GuestFailed, "the guest's clipboard agent has ended"));
                }

                await Task.Delay(Pause, time, ending.Token).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException)
        {
            // The guest ends.
        }
    }

    private async Task ConverseAsync()
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), ending.Token).ConfigureAwait(false);
        using var stream = new NetworkStream(socket);
        using var over = CancellationTokenSource.CreateLinkedTokenSource(ending.Token);
        var channel = Channel.CreateBounded<byte[]>(new BoundedChannelOptions(MostWaiting) { SingleReader = true });
        lock (gate)
        {
            sending = channel;
            Announce(wantsAnswer: true);
        }

        var writing = WriteAsync(channel.Reader, stream, over.Token);
        var reading = ReadAsync(stream, over.Token);
        try
        {
            await (await Task.WhenAny(writing, reading).ConfigureAwait(false)).ConfigureAwait(false);
        }
        finally
        {
            await over.CancelAsync().ConfigureAwait(false);
            await Task.WhenAll(writing, reading).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private async Task ReadAsync(NetworkStream stream, CancellationToken cancellationToken)
    {
        var (parser, buffer) = (new AgentParser(LongestMessage), new byte[8192]);
        int count;
        while ((count = await stream.ReadAsync(buffer, cancellationToken).ConfigureAwait(false)) > 0)
        {
            parser.Feed(buffer.AsSpan(0, count), Hear);
        }
    }

    private static async Task WriteAsync(ChannelReader<byte[]> messages, NetworkStream stream, CancellationToken cancellationToken)
    {
        await foreach (var message in messages.ReadAllAsync(cancellationToken).ConfigureAwait(false))
        {
            await stream.WriteAsync(message, cancellationToken).ConfigureAwait(false);
        }
    }
}
