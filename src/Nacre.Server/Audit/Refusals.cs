using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Authorization;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>
/// Writes down what was refused or failed and would have changed something, and every credential that was refused. Of one source and in all only so much each hour,
/// so that nobody fills the disk by asking for what is refused; how much was left out is written at the end of the hour. Who has a credential is counted apart:
/// strangers can't hide what insiders try.
/// </summary>
internal sealed class Refusals(IServiceScopeFactory scopes, TimeProvider time, ILogger<Refusals> logger)
{
    public const int MostOfSource = 20, Most = 200;

    /// <summary>Sources that are told apart in an hour; the rest are one.</summary>
    private const int MostSources = 1000;

    /// <summary>Sources that the line about what was left out names.</summary>
    private const int MostNamed = 10;

    private const int LongestDetail = 400;
    private const string Others = "others";
    private static readonly TimeSpan Span = TimeSpan.FromHours(1);
    private readonly Lock gate = new();
    private readonly List<Hour> ended = [];
    private Hour? strangers, insiders;

    /// <summary>Notes a failure that is about to be answered.</summary>
    public async Task NoteAsync(HttpContext context, Failure failure)
    {
        if (context.GetEndpoint() is not RouteEndpoint endpoint || !IsTold(context.Request.Method, failure.Kind))
        {
            return;
        }

        // A device whose token was refused is named, and a stranger all the same: an old token may be in other hands.
        var caller = context.RequestServices.GetRequiredService<Caller>();
        var isInsider = context.User.Identity?.IsAuthenticated == true;
        if (!Take(caller.Source, isInsider))
        {
            return;
        }

        var isSignIn = !isInsider && endpoint.Metadata.GetMetadata<IAuthorizeData>() is not null;
        var result = failure.Kind.HttpStatus >= StatusCodes.Status500InternalServerError ? AuditResult.Failed : AuditResult.Refused;

        // What is wrong with the form of a request is told in the caller's own words.
        var detail = failure.Kind == ErrorCatalogue.RequestInvalid || failure.Kind == ErrorCatalogue.PolicyInvalid ? failure.Kind.Code : $"{failure.Kind.Code}: {Text.Printable(failure.Detail, LongestDetail)}";
        try
        {
            await WriteAsync(caller.Actor ?? "nobody", isSignIn ? "sign-in" : "request", SubjectOf(endpoint, context.Request.RouteValues), detail, result, CancellationToken.None);
        }
#pragma warning disable CA1031 // The caller is to get the answer in any case.
        catch (Exception exception)
#pragma warning restore CA1031
        {
            logger.RefusalNotWritten(exception);
        }
    }

    /// <summary>Writes how much was left out in hours that have ended, or in all.</summary>
    public async Task WriteLeftOutAsync(bool all, CancellationToken cancellationToken)
    {
        List<Hour> over;
        lock (gate)
        {
            End(ref strangers, all);
            End(ref insiders, all);
            over = [.. ended];
            ended.Clear();
        }

        while (over.Count > 0)
        {
            try
            {
                await WriteLeftOutAsync(over[0], cancellationToken);
                over.RemoveAt(0);
            }
            catch
            {
                lock (gate)
                {
                    ended.AddRange(over); // for the next time
                }

                throw;
            }
        }
    }

    private async Task WriteLeftOutAsync(Hour hour, CancellationToken cancellationToken)
    {
        if (hour.LeftOut.Count > 0)
        {
            var named = hour.LeftOut.OrderByDescending(one => one.Value).ThenBy(one => one.Key, StringComparer.Ordinal).Take(MostNamed).Select(one => string.Create(CultureInfo.InvariantCulture, $"{one.Key} {one.Value}"));
            await WriteAsync(
                "server", "audit.left-out", hour.Who,
                string.Create(CultureInfo.InvariantCulture, $"{hour.LeftOut.Values.Sum()} refusals since {hour.Since:u} are not written, of {hour.LeftOut.Count} sources: {string.Join(", ", named)}"), AuditResult.Refused, cancellationToken);
        }
    }

    private static bool IsTold(string method, ErrorKind kind)
    {
        var isOutage = kind == ErrorCatalogue.DatabaseUnreachable || kind == ErrorCatalogue.DatabaseRefused; // there is nowhere to write it
        var isCredential = kind.HttpStatus is StatusCodes.Status401Unauthorized or StatusCodes.Status403Forbidden;
        return !isOutage && (isCredential || !(HttpMethods.IsGet(method) || HttpMethods.IsHead(method)));
    }

    private static string SubjectOf(RouteEndpoint endpoint, RouteValueDictionary values)
    {
        // What a route takes may be anything, a secret by mistake among it: names and numbers are said.
        var named = endpoint.RoutePattern.Parameters.Select(parameter => $"{values[parameter.Name]}").Select(untrusted => Names.IsValid(untrusted) || IsNumber(untrusted) ? untrusted : "?");
        return string.Join(' ', named.Prepend(endpoint.Metadata.GetMetadata<IEndpointNameMetadata>()?.EndpointName ?? "?"));
    }

    /// <summary>A release's number, or the identity of a device, an order or a segment.</summary>
    private static bool IsNumber(string untrusted) => untrusted is { Length: > 0 and <= 32 } && untrusted.All(char.IsAsciiHexDigitLower);

    /// <summary>An address; of the sixth version the network that a provider gives one customer.</summary>
    public static string SourceOf(string? address)
    {
        if (!IPAddress.TryParse(address, out var parsed) || parsed.AddressFamily != AddressFamily.InterNetworkV6)
        {
            return address ?? Others;
        }

        var bytes = parsed.GetAddressBytes();
        bytes.AsSpan(8).Clear();
        return $"{new IPAddress(bytes)}/64";
    }

    private bool Take(string? address, bool isInsider)
    {
        lock (gate)
        {
            End(ref strangers, all: false);
            End(ref insiders, all: false);
            return (isInsider ? insiders ??= new Hour("insiders", time.GetUtcNow()) : strangers ??= new Hour("strangers", time.GetUtcNow())).Take(SourceOf(address));
        }
    }

    private void End(ref Hour? hour, bool all)
    {
        if (hour is not null && (all || time.GetUtcNow() >= hour.Since + Span))
        {
            ended.Add(hour);
            hour = null;
        }
    }

    private async Task WriteAsync(string actor, string action, string subject, string detail, AuditResult result, CancellationToken cancellationToken)
    {
        // A scope of its own: what the request changed and did not commit stays there.
        await using var scope = scopes.CreateAsyncScope();
        var database = scope.ServiceProvider.GetRequiredService<NacreDatabase>();
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        await scope.ServiceProvider.GetRequiredService<AuditTrail>().AppendAsync(actor, action, subject, detail, result, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
    }

    private sealed class Hour(string who, DateTimeOffset since)
    {
        private readonly Dictionary<string, int> written = new(StringComparer.Ordinal);
        private int total;

        public string Who { get; } = who;

        public DateTimeOffset Since { get; } = since;

        public Dictionary<string, int> LeftOut { get; } = new(StringComparer.Ordinal);

        public bool Take(string source)
        {
            var key = written.Count < MostSources || written.ContainsKey(source) ? source : Others;
            var before = written.GetValueOrDefault(key);
            written[key] = before + 1;
            if (before < MostOfSource && total < Most)
            {
                total++;
                return true;
            }

            LeftOut[key] = LeftOut.GetValueOrDefault(key) + 1;
            return false;
        }
    }
}

/// <summary>Writes what was left out: a minute after each hour at most, and at the end.</summary>
internal sealed class RefusalSweeper(Refusals refusals, TimeProvider time, ILogger<RefusalSweeper> logger) : BackgroundService
{
    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        await SweepAsync(all: true, cancellationToken);
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromMinutes(1), time);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            await SweepAsync(all: false, stoppingToken);
        }
    }

    private async Task SweepAsync(bool all, CancellationToken cancellationToken)
    {
        try
        {
            await refusals.WriteLeftOutAsync(all, cancellationToken);
        }
#pragma warning disable CA1031 // A database that is away now must not end the server, nor keep it from ending.
        catch (Exception exception) when (exception is not OperationCanceledException)
#pragma warning restore CA1031
        {
            logger.RefusalNotWritten(exception);
        }
    }
}
