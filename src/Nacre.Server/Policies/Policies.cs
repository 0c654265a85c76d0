using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Server;

/// <summary>What one level decides.</summary>
internal sealed class PolicyRow
{
    /// <summary>A <see cref="PolicyLevel"/>.</summary>
    public required string Level { get; init; }

    /// <summary>A <see cref="PolicyDocument"/> as JSON.</summary>
    public required string Document { get; set; }
}

/// <summary>Which policy a device said that it enforces.</summary>
internal sealed class PolicyAcknowledgementRow
{
    public required string DeviceId { get; init; }

    public required string LivePc { get; init; }

    public required string Version { get; set; }

    public required DateTimeOffset At { get; set; }

    /// <summary>A list of text as JSON: settings that take effect at the next start.</summary>
    public required string FromNextStart { get; set; }

    /// <summary>A list of text as JSON: settings that the device can't enforce, with the reason.</summary>
    public required string Unenforceable { get; set; }

    /// <summary>A list of <see cref="StatedHostCheck"/> as JSON.</summary>
    public string HostChecks { get; set; } = "[]";

    /// <summary>Which terms of use the user agreed to.</summary>
    public string? AcceptedTerms { get; set; }
}

internal static class PolicyErrors
{
    public static Failure NoLevel { get; } = new(ErrorCatalogue.RequestInvalid, "a level is 'organisation', 'group:NAME', 'livepc:NAME' or 'device:ID'");

    public static Failure NoSubject(PolicyLevel level) => new(ErrorCatalogue.NotFound, $"there is no {level.Kind switch
    {
        PolicyLevelKind.Group => "group",
        PolicyLevelKind.LivePc => "LivePC",
        _ => "device",
    }} '{level.Subject}'");

    public static Failure Of(PolicyException exception) => new(ErrorCatalogue.PolicyInvalid, exception.Message);
}

/// <summary>What the levels decide, and what holds for somebody.</summary>
internal sealed class Policies(NacreDatabase database, Following following, AuditTrail audit, TimeProvider time)
{
    private const int MostListed = 100, LongestListed = 400;

    /// <summary>What a level decides.</summary>
    public async Task<Result<PolicyDocument>> GetAsync(string untrustedLevel, CancellationToken cancellationToken)
    {
        if (PolicyLevel.TryParse(untrustedLevel) is not { } level)
        {
            return PolicyErrors.NoLevel;
        }

        return await IsThereAsync(level, cancellationToken) ? await FindAsync(level, cancellationToken) : PolicyErrors.NoSubject(level);
    }

    /// <summary>Sets all that a level decides, or, as a merge patch (RFC 7396), some of it: null takes a decision back.</summary>
    public async Task<Result<PolicyDocument>> ChangeAsync(string untrustedLevel, JsonElement untrusted, bool isPatch, CancellationToken cancellationToken)
    {
        if (PolicyLevel.TryParse(untrustedLevel) is not { } level)
        {
            return PolicyErrors.NoLevel;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (!await IsThereAsync(level, cancellationToken))
        {
            return PolicyErrors.NoSubject(level);
        }

        var before = await FindAsync(level, cancellationToken);
        PolicyDocument document;
        try
        {
            document = isPatch ? before.Patch(untrusted) : PolicyDocument.Parse(untrusted);
            if (level.Problems(document) is { Count: > 0 } problems)
            {
                throw new PolicyException(problems);
            }
        }
        catch (PolicyException exception)
        {
            return PolicyErrors.Of(exception);
        }

        // A name that was mistyped would take the application from everybody.
        var named = AppVisibility.Groups(Policy.Of(level.ToString(), document));
        var known = named.Count == 0 ? [] : await database.Groups.Where(row => named.Contains(row.Name)).Select(row => row.Name).ToListAsync(cancellationToken);
        if (named.Except(known).Order(StringComparer.Ordinal).FirstOrDefault() is { } unknown)
        {
            return PolicyErrors.Of(new PolicyException([$"'{Settings.AppVisibility}': there is no group '{unknown}'"]));
        }

        if (document.Equals(before))
        {
            return document;
        }

        // Of one LivePC it is known what it is held at; of the other levels each of the LivePCs they reach may have another image.
        if (level.Kind == PolicyLevelKind.LivePc && document.TryGet(Settings.UpdateChannel, out var follows) && !(before.TryGet(Settings.UpdateChannel, out var followed) && followed.Equals(follows))
            && await database.LivePcs.AsNoTracking().SingleAsync(row => row.Name == level.Subject, cancellationToken) is var livePc
            && (await following.OfSystemAsync(livePc, Policy.Of(level.ToString(), document), null, cancellationToken)).Failure is { } failure)
        {
            return failure;
        }

        var key = level.ToString();
        if (await database.Policies.SingleOrDefaultAsync(row => row.Level == key, cancellationToken) is { } row)
        {
            row.Document = document.ToString();
        }
        else
        {
            database.Policies.Add(new PolicyRow { Level = key, Document = document.ToString() });
        }

        await audit.AppendAsync(Roles.Administrator, "policy.change", key, document.ToString(), cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return document;
    }

    /// <summary>What holds for a LivePC, on a device where one is named, and who decided it.</summary>
    public async Task<Result<EffectivePolicy>> ExplainAsync(string untrustedLivePc, string? untrustedDevice, CancellationToken cancellationToken)
    {
        if (await database.LivePcs.AsNoTracking().SingleOrDefaultAsync(row => row.Name == untrustedLivePc, cancellationToken) is not { } livePc)
        {
            return LivePcErrors.NoLivePc;
        }

        var device = untrustedDevice is null ? null : await database.Devices.AsNoTracking().SingleOrDefaultAsync(row => row.Id == untrustedDevice, cancellationToken);
        if (untrustedDevice is not null && device is null)
        {
            return DeviceErrors.NoDevice;
        }

        var policy = await ResolveAsync(device?.User, untrustedLivePc, device?.Id, cancellationToken);
        return new EffectivePolicy(
            policy.Version, [.. Settings.All.Select(setting => new EffectiveSetting(setting.Name, setting.Write(policy.Get(setting)), policy.DecidedBy(setting)))],
            await following.ProblemsAsync(livePc, policy, device?.Id, cancellationToken));
    }

    /// <summary>What holds for a user, on a LivePC and a device where they are named.</summary>
    public async Task<Policy> ResolveAsync(string? user, string? livePc, string? device, CancellationToken cancellationToken)
    {
        var groups = await (
            from member in database.GroupMembers
            where member.User == user
            join one in database.Groups on member.Group equals one.Name
            orderby one.Position
            select one.Name).ToListAsync(cancellationToken);
        var levels = LevelsOf(groups, livePc, device);
        return Resolve(levels, await database.Policies.AsNoTracking().Where(row => levels.Contains(row.Level)).ToDictionaryAsync(row => row.Level, row => row.Document, cancellationToken));
    }

    /// <summary>The same for many: everything is read once. Answers for a user, a LivePC or none, and a device.</summary>
    public async Task<Func<string, string?, string, Policy>> LoadAsync(CancellationToken cancellationToken)
    {
        var documents = await database.Policies.AsNoTracking().ToDictionaryAsync(row => row.Level, row => row.Document, cancellationToken);
        var groups = await GroupsAsync(cancellationToken);
        return (user, livePc, device) => Resolve(LevelsOf(groups[user], livePc, device), documents);
    }

    /// <summary>The groups of each user, in their order.</summary>
    private async Task<ILookup<string, string>> GroupsAsync(CancellationToken cancellationToken) => (await (
        from member in database.GroupMembers
        join one in database.Groups on member.Group equals one.Name
        orderby one.Position
        select new { member.User, one.Name }).ToListAsync(cancellationToken)).ToLookup(one => one.User, one => one.Name);

    /// <summary>One setting alone for many, most often a few of whose levels decide it.</summary>
    public async Task<Func<string, string?, string, T>> LoadAsync<T>(Setting<T> setting, CancellationToken cancellationToken)
        where T : notnull
    {
        var decided = await FindDecidedAsync(setting, cancellationToken);
        if (decided.Count == 0)
        {
            return (_, _, _) => setting.FactoryValue;
        }

        var groups = await GroupsAsync(cancellationToken);
        return (user, livePc, device) => LevelsOf(groups[user], livePc, device).FindLast(decided.ContainsKey) is { } level ? decided[level] : setting.FactoryValue;
    }

    /// <summary>What each level says about a setting that says anything about it.</summary>
    public async Task<Dictionary<string, T>> FindDecidedAsync<T>(Setting<T> setting, CancellationToken cancellationToken)
        where T : notnull
    {
        var decided = new Dictionary<string, T>(StringComparer.Ordinal);
        foreach (var row in await database.Policies.AsNoTracking().Where(row => row.Document.Contains(setting.Name)).ToListAsync(cancellationToken))
        {
            if (PolicyDocument.Parse(row.Document).TryGet(setting, out var value))
            {
                decided[row.Level] = (T)value;
            }
        }

        return decided;
    }

    /// <summary>Takes what a device says that it enforces.</summary>
    public async Task<Result<Done>> AcknowledgeAsync(string deviceId, string untrustedLivePc, AcknowledgePolicy untrusted, CancellationToken cancellationToken)
    {
        if (untrusted.Version is not { Length: 16 } || !untrusted.Version.All(char.IsAsciiHexDigitLower) || !AreLabels(untrusted.FromNextStart) || !AreLabels(untrusted.Unenforceable)
            || !AreStated(untrusted.HostChecks) || untrusted.AcceptedTerms is { } terms && (terms.Length != 16 || !terms.All(char.IsAsciiHexDigitLower)))
        {
            return new Failure(ErrorCatalogue.RequestInvalid, $"'version' and 'acceptedTerms' must have 16 hexadecimal digits, the lists at most {MostListed} printable texts of {LongestListed} characters, each host check an outcome of 'passed', 'failed' or 'unknown'");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var device = await database.Devices.AsNoTracking().SingleAsync(row => row.Id == deviceId, cancellationToken);
        if (!await database.Entitlements.AnyAsync(row => row.LivePc == untrustedLivePc && row.User == device.User, cancellationToken))
        {
            return LeaseErrors.NotEntitled;
        }

        var row = await database.PolicyAcknowledgements.SingleOrDefaultAsync(one => one.DeviceId == deviceId && one.LivePc == untrustedLivePc, cancellationToken);
        if (row is null)
        {
            row = new PolicyAcknowledgementRow { DeviceId = deviceId, LivePc = untrustedLivePc, Version = "", At = time.Now(), FromNextStart = "", Unenforceable = "" };
            database.PolicyAcknowledgements.Add(row);
        }

        if (row.Version != untrusted.Version)
        {
            await audit.AppendAsync("device:" + deviceId, "policy.acknowledge", untrustedLivePc, untrusted.Version, cancellationToken);
        }

        var before = JsonSerializer.Deserialize<IReadOnlyList<StatedHostCheck>>(row.HostChecks, ContractJson.Options)!;
        if (Summary(before) is var was && Summary(untrusted.HostChecks ?? []) is var found && was != found)
        {
            await audit.AppendAsync("device:" + deviceId, "host.check", untrustedLivePc, found, cancellationToken);
        }

        if (untrusted.AcceptedTerms is { } accepted && accepted != row.AcceptedTerms)
        {
            await audit.AppendAsync("device:" + deviceId, "terms.accept", untrustedLivePc, accepted, cancellationToken);
        }

        row.AcceptedTerms = untrusted.AcceptedTerms ?? row.AcceptedTerms;
        row.HostChecks = JsonSerializer.Serialize(untrusted.HostChecks ?? [], ContractJson.Options);
        (row.Version, row.At) = (untrusted.Version, time.Now());
        row.FromNextStart = JsonSerializer.Serialize(untrusted.FromNextStart ?? [], ContractJson.Options);
        row.Unenforceable = JsonSerializer.Serialize(untrusted.Unenforceable ?? [], ContractJson.Options);
        await database.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    /// <summary>Which policy each device enforces, and whether it is the one that holds.</summary>
    public async Task<IReadOnlyList<EnforcedPolicy>> ListAsync(CancellationToken cancellationToken)
    {
        var rows = await (
            from row in database.PolicyAcknowledgements.AsNoTracking()
            join device in database.Devices on row.DeviceId equals device.Id
            where device.RevokedAt == null
            orderby row.LivePc, device.User, device.Id
            select new { Row = row, device.Name, device.User }).ToListAsync(cancellationToken);
        var resolve = await LoadAsync(cancellationToken);
        var answer = new List<EnforcedPolicy>();
        foreach (var one in rows)
        {
            var holds = resolve(one.User, one.Row.LivePc, one.Row.DeviceId);
            answer.Add(new EnforcedPolicy(
                one.Row.DeviceId, one.Name, one.User, one.Row.LivePc, one.Row.Version, holds.Version == one.Row.Version, one.Row.At,
                JsonSerializer.Deserialize<IReadOnlyList<string>>(one.Row.FromNextStart, ContractJson.Options)!,
                JsonSerializer.Deserialize<IReadOnlyList<string>>(one.Row.Unenforceable, ContractJson.Options)!,
                JsonSerializer.Deserialize<IReadOnlyList<StatedHostCheck>>(one.Row.HostChecks, ContractJson.Options)!, one.Row.AcceptedTerms));
        }

        return answer;
    }

    /// <summary>The levels that speak for somebody, the weakest first.</summary>
    private static List<string> LevelsOf(IEnumerable<string> groups, string? livePc, string? device)
    {
        var levels = new List<PolicyLevel> { PolicyLevel.Organisation };
        levels.AddRange(groups.Select(name => new PolicyLevel(PolicyLevelKind.Group, name)));
        if (livePc is not null)
        {
            levels.Add(new PolicyLevel(PolicyLevelKind.LivePc, livePc));
        }

        if (device is not null)
        {
            levels.Add(new PolicyLevel(PolicyLevelKind.Device, device));
        }

        return levels.ConvertAll(level => level.ToString());
    }

    private static Policy Resolve(List<string> levels, Dictionary<string, string> documents) =>
        Policy.Of(levels.Where(documents.ContainsKey).Select(level => (level, PolicyDocument.Parse(documents[level]))));

    private static bool AreLabels(IReadOnlyList<string>? untrusted) => untrusted is null || (untrusted.Count <= MostListed && untrusted.All(text => Text.IsLabel(text, LongestListed)));

    private static bool AreStated(IReadOnlyList<StatedHostCheck>? untrusted) => untrusted is null || (untrusted.Count <= MostListed
        && untrusted.All(check => check is { Outcome: "passed" or "failed" or "unknown" } && Text.IsLabel(check.Check, 100) && Text.IsLabel(check.Detail, LongestListed)));

    /// <summary>What of the checks is worth a line of the audit log: which did not pass. Their words change with every free byte.</summary>
    private static string Summary(IReadOnlyList<StatedHostCheck> checks) => checks.Where(check => check.Outcome != "passed").Select(check => $"{check.Check}: {check.Outcome}").ToList() is { Count: > 0 } wrong
        ? Text.Printable(string.Join(", ", wrong), 1000)
        : checks.Count == 0 ? "" : "all passed";

    private async Task<PolicyDocument> FindAsync(PolicyLevel level, CancellationToken cancellationToken)
    {
        var key = level.ToString();
        return await database.Policies.AsNoTracking().SingleOrDefaultAsync(row => row.Level == key, cancellationToken) is { } row ? PolicyDocument.Parse(row.Document) : PolicyDocument.Empty;
    }

    private async Task<bool> IsThereAsync(PolicyLevel level, CancellationToken cancellationToken) => level.Kind switch
    {
        PolicyLevelKind.Group => await database.Groups.AnyAsync(row => row.Name == level.Subject, cancellationToken),
        PolicyLevelKind.LivePc => await database.LivePcs.AnyAsync(row => row.Name == level.Subject, cancellationToken),
        PolicyLevelKind.Device => await database.Devices.AnyAsync(row => row.Id == level.Subject, cancellationToken),
        _ => true,
    };
}

internal static class PolicyEndpoints
{
    public static void Map(Groups groups)
    {
        var group = groups.Administrator;
        groups.Of(Roles.Administrator, Roles.HelpDesk, Roles.Auditor).MapGet("/policies/{level}", async (string level, Policies policies, CancellationToken cancellationToken) =>
                (await policies.GetAsync(level, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("GetPolicy").WithSummary("What a level decides: 'organisation', 'group:NAME', 'livepc:NAME' or 'device:ID'.")
            .Produces<PolicyDocument>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotFound);
        group.MapPut("/policies/{level}", async (string level, JsonElement body, Policies policies, CancellationToken cancellationToken) =>
                (await policies.ChangeAsync(level, body, isPatch: false, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("PutPolicy").WithSummary("Sets all that a level decides. Devices learn it at their next contact.")
            .Produces<PolicyDocument>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.PolicyInvalid, ErrorCatalogue.NotFound, ErrorCatalogue.NotApproved);
        group.MapPatch("/policies/{level}", async (string level, JsonElement body, Policies policies, CancellationToken cancellationToken) =>
                (await policies.ChangeAsync(level, body, isPatch: true, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("PatchPolicy").WithSummary("Changes some of what a level decides (RFC 7396); null takes a decision back.")
            .Produces<PolicyDocument>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.PolicyInvalid, ErrorCatalogue.NotFound, ErrorCatalogue.NotApproved);
        groups.Of(Roles.Administrator, Roles.HelpDesk, Roles.Auditor).MapGet("/livepcs/{name}/policy", async (string name, string? device, Policies policies, CancellationToken cancellationToken) =>
                (await policies.ExplainAsync(name, device, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("ExplainPolicy").WithSummary("What holds for a LivePC, on a device where one is named, and which level decided each setting.")
            .Produces<EffectivePolicy>().Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.Administrator, Roles.HelpDesk, Roles.Auditor).MapGet("/policies", (Policies policies, CancellationToken cancellationToken) => policies.ListAsync(cancellationToken))
            .WithName("ListEnforcedPolicies").WithSummary("Which policy each device enforces, and whether it is the one that holds.");
        groups.Device.MapPost("/livepcs/{name}/policy", async (string name, AcknowledgePolicy body, System.Security.Claims.ClaimsPrincipal caller, Policies policies, CancellationToken cancellationToken) =>
                (await policies.AcknowledgeAsync(caller.FindFirst(System.Security.Claims.ClaimTypes.NameIdentifier)!.Value, name, body, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("AcknowledgePolicy").WithSummary("Which policy the device enforces, and what of it can't be.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotEntitled);
    }
}
