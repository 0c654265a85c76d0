using System.Diagnostics;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Nacre.Contracts;

namespace Nacre.Player.Machines;

/// <summary>What a command in the guest did.</summary>
/// <param name="ExitCode">Its exit code; 128 + the signal where a signal ended it.</param>
/// <param name="Output">Its standard output.</param>
/// <param name="Error">Its standard error.</param>
public sealed record GuestCommandResult(int ExitCode, byte[] Output, byte[] Error);

/// <summary>
/// Talks to qemu-guest-agent inside the guest. The guest is not trusted: answers are bounded and only the fields expected are read.
/// One conversation at a time.
/// </summary>
internal sealed class GuestAgent : IDisposable
{
    private const int MaxLine = 64 * 1024 * 1024;
    private static readonly TimeSpan AnswerLimit = TimeSpan.FromSeconds(60);

    private sealed record StartedCommand([property: JsonPropertyName("pid"), JsonRequired] long Pid);

    private sealed record CommandStatus(
        [property: JsonPropertyName("exited"), JsonRequired] bool Exited,
        [property: JsonPropertyName("exitcode")] int? ExitCode,
        [property: JsonPropertyName("signal")] int? Signal,
        [property: JsonPropertyName("out-data")] byte[]? Output,
        [property: JsonPropertyName("err-data")] byte[]? Error);

    private readonly string socketPath;
    private readonly SemaphoreSlim turn = new(1, 1);
    private JsonLines? lines;

    public GuestAgent(string socketPath) => this.socketPath = socketPath;

    /// <summary>Waits until the agent answers for the first time.</summary>
    public async Task WaitAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            using var attempt = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            attempt.CancelAfter(TimeSpan.FromSeconds(2));
            try
            {
                await turn.WaitAsync(cancellationToken).ConfigureAwait(false);
                try
                {
                    await SynchroniseAsync(attempt.Token).ConfigureAwait(false);
                    return;
                }
                finally
                {
                    turn.Release();
                }
            }
            catch (Exception exception) when (exception is IOException or SocketException or JsonException or OperationCanceledException)
            {
                cancellationToken.ThrowIfCancellationRequested();
                await Task.Delay(TimeSpan.FromMilliseconds(100), cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Runs a command in the guest as root and waits for its end.</summary>
    /// <param name="path">The program.</param>
    /// <param name="arguments">Its arguments.</param>
    /// <param name="input">Its standard input.</param>
    /// <param name="cancellationToken">Stops waiting; the command goes on in the guest.</param>
    public async Task<GuestCommandResult> ExecuteAsync(string path, IReadOnlyList<string> arguments, byte[]? input, CancellationToken cancellationToken)
    {
        var request = new JsonObject
        {
            ["path"] = path,
            ["arg"] = new JsonArray([.. arguments.Select(argument => (JsonNode)argument)]),
            ["capture-output"] = true,
        };
        if (input is { Length: > 0 })
        {
            request["input-data"] = Convert.ToBase64String(input);
        }

        var started = await ThawedAsync("guest-exec", request, cancellationToken).ConfigureAwait(false);
        var process = Read<StartedCommand>(started, "guest-exec").Pid;
        for (var pause = 20; ; pause = Math.Min(pause * 2, 500))
        {
            var answer = await ThawedAsync("guest-exec-status", new JsonObject { ["pid"] = process }, cancellationToken).ConfigureAwait(false);
            var status = Read<CommandStatus>(answer, "guest-exec-status");
            if (status.Exited)
            {
                return new GuestCommandResult(status.ExitCode ?? 128 + (status.Signal ?? 0), status.Output ?? [], status.Error ?? []);
            }

            await Task.Delay(TimeSpan.FromMilliseconds(pause), cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Starts a command in the guest as root and does not wait for it.</summary>
    /// <returns>Its process number in the guest.</returns>
    public async Task<long> StartAsync(string path, IReadOnlyList<string> arguments, CancellationToken cancellationToken)
    {
        var request = new JsonObject { ["path"] = path, ["arg"] = new JsonArray([.. arguments.Select(argument => (JsonNode)argument)]) };
        return Read<StartedCommand>(await CommandAsync("guest-exec", request, cancellationToken).ConfigureAwait(false), "guest-exec").Pid;
    }

    /// <summary>Does something while file systems stand still: what was written is on the disk, and what is written waits. Whatever happens, they go on afterwards. Nothing
    /// else is asked of the agent meanwhile: it would refuse.</summary>
    /// <param name="mountPoints">Which.</param>
    /// <param name="work">What to do.</param>
    /// <param name="freezeLimit">How long the guest may take to stand still.</param>
    /// <param name="thawLimit">How long one that does not answer is asked to go on.</param>
    /// <exception cref="NacreException">GuestFailed: they do not stand still; what <paramref name="work"/> throws.</exception>
    public async Task<T> WhileFrozenAsync<T>(IReadOnlyList<string>? mountPoints, Func<T> work, TimeSpan freezeLimit, TimeSpan thawLimit)
    {
        await turn.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        try
        {
            try
            {
                using var limit = new CancellationTokenSource(freezeLimit);
                var answer = mountPoints is null
                    ? await ConverseAsync("guest-fsfreeze-freeze", [], limit.Token).ConfigureAwait(false)
                    : await ConverseAsync(
                        "guest-fsfreeze-freeze-list", new JsonObject { ["mountpoints"] = new JsonArray([.. mountPoints.Select(path => (JsonNode)path)]) }, limit.Token).ConfigureAwait(false);
                return answer is JsonValue value && value.TryGetValue<long>(out var count) && count > 0
                    ? work()
                    : throw new NacreException(ErrorCatalogue.GuestFailed, "the guest has none of the user's layers mounted, so no moment of them can be taken");
            }
            catch (OperationCanceledException exception)
            {
                throw new NacreException(ErrorCatalogue.GuestFailed, $"the guest's file systems did not stand still within {freezeLimit.TotalSeconds:0} seconds, so no moment was taken", exception);
            }
            finally
            {
                await ThawAsync(thawLimit).ConfigureAwait(false);
            }
        }
        finally
        {
            turn.Release();
        }
    }

    /// <summary>Lets all file systems go on.</summary>
    /// <exception cref="NacreException">GuestFailed.</exception>
    public async Task ThawAsync(CancellationToken cancellationToken) => await CommandAsync("guest-fsfreeze-thaw", [], cancellationToken).ConfigureAwait(false);

    /// <summary>Whether the agent holds file systems still.</summary>
    /// <exception cref="NacreException">GuestFailed.</exception>
    public async Task<bool> IsFrozenAsync(CancellationToken cancellationToken) =>
        await CommandAsync("guest-fsfreeze-status", [], cancellationToken).ConfigureAwait(false) is JsonValue value && value.TryGetValue<string>(out var text) && text == "frozen";

    /// <summary>Asks the guest to shut down; it does not answer.</summary>
    public async Task ShutDownAsync(CancellationToken cancellationToken)
    {
        await turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await SynchroniseAsync(cancellationToken).ConfigureAwait(false);
            await lines!.WriteAsync(new JsonObject { ["execute"] = "guest-shutdown" }, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            turn.Release();
        }
    }

    public void Dispose()
    {
        lines?.Dispose();
        turn.Dispose();
    }

    /// <summary>A command that the agent refuses while the guest's file systems are frozen for a moment, which takes a second: it waits for its end.</summary>
    private async Task<JsonNode?> ThawedAsync(string command, JsonObject arguments, CancellationToken cancellationToken)
    {
        for (var limit = Stopwatch.StartNew(); ; await Task.Delay(TimeSpan.FromMilliseconds(200), cancellationToken).ConfigureAwait(false))
        {
            try
            {
                return await CommandAsync(command, (JsonObject)arguments.DeepClone(), cancellationToken).ConfigureAwait(false);
            }
            catch (NacreException exception) when (exception.Message.Contains("frozen", StringComparison.Ordinal) && limit.Elapsed < AnswerLimit)
            {
                // Asked again.
            }
        }
    }

    private static NacreException Odd(string command) => new(ErrorCatalogue.GuestFailed, $"the guest's agent answered '{command}' with something else");

    /// <summary>Reads an answer as what it should be.</summary>
    private static T Read<T>(JsonNode? untrustedAnswer, string command)
        where T : class
    {
        try
        {
            return untrustedAnswer.Deserialize<T>() ?? throw Odd(command);
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            throw Odd(command);
        }
    }

    private async Task<JsonNode?> CommandAsync(string command, JsonObject arguments, CancellationToken cancellationToken)
    {
        await turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            return await ConverseAsync(command, arguments, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            turn.Release();
        }
    }

    /// <summary>Lets file systems go on, asking again where the guest does not answer; its own guard does it too then.</summary>
    private async Task ThawAsync(TimeSpan within)
    {
        using var limit = new CancellationTokenSource(within);
        while (!limit.IsCancellationRequested)
        {
            try
            {
                await ConverseAsync("guest-fsfreeze-thaw", [], limit.Token).ConfigureAwait(false);
                return;
            }
            catch (Exception exception) when (exception is NacreException or OperationCanceledException)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(200), CancellationToken.None).ConfigureAwait(false);
            }
        }
    }

    /// <summary>One command and its answer, by who has the turn.</summary>
    private async Task<JsonNode?> ConverseAsync(string command, JsonObject arguments, CancellationToken cancellationToken)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(AnswerLimit);
        try
        {
            if (lines is null)
            {
                await SynchroniseAsync(limit.Token).ConfigureAwait(false);
            }

            await lines!.WriteAsync(new JsonObject { ["execute"] = command, ["arguments"] = arguments }, limit.Token).ConfigureAwait(false);
            var reply = await lines.ReadAsync(limit.Token).ConfigureAwait(false) ?? throw new IOException("the guest's agent is gone");
            return reply["error"] is { } error
                ? throw new NacreException(ErrorCatalogue.GuestFailed, $"the guest refused '{command}': {error}")
                : reply["return"];
        }
        catch (Exception exception) when (exception is IOException or SocketException or JsonException or InvalidOperationException
            || (exception is OperationCanceledException && !cancellationToken.IsCancellationRequested))
        {
            // What comes next on this connection may belong to the command that failed: start a new one.
            lines?.Dispose();
            lines = null;
            throw new NacreException(ErrorCatalogue.GuestFailed, "the guest's agent does not answer", exception);
        }
        catch (OperationCanceledException)
        {
            // Nor is the answer to a command that nobody waits for any more the next one's.
            lines?.Dispose();
            lines = null;
            throw;
        }
    }

    /// <summary>Starts a conversation afresh: everything before the answer to a random number is an earlier one's.</summary>
    private async Task SynchroniseAsync(CancellationToken cancellationToken)
    {
        try
        {
            lines ??= await JsonLines.ConnectAsync(socketPath, MaxLine, cancellationToken).ConfigureAwait(false);
            var number = RandomNumberGenerator.GetInt32(1, int.MaxValue);
            var request = new JsonObject { ["execute"] = "guest-sync-delimited", ["arguments"] = new JsonObject { ["id"] = number } };
            await lines.WriteAsync([0xFF, .. System.Text.Encoding.UTF8.GetBytes(request.ToJsonString()), (byte)'\n'], cancellationToken).ConfigureAwait(false);
            while (true)
            {
                var reply = await lines.ReadAsync(cancellationToken).ConfigureAwait(false) ?? throw new IOException("the guest's agent is gone");
                if (reply["return"] is JsonValue value && value.TryGetValue<long>(out var answer) && answer == number)
                {
                    return;
                }
            }
        }
        catch
        {
            lines?.Dispose();
            lines = null;
            throw;
        }
    }
}
