using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Nacre.Policies;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre policy</c>: what the organisation, its groups, LivePCs and devices decide.</summary>
internal static class PolicyCommands
{
    private const string Levels = "organisation, group:NAME, livepc:NAME or device:ID";
    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true, Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static Command Create() => new("policy", "Decide what devices do, and see who decided what; docs/policies.md lists the settings") { Schema(), Validate(), Show(), Set(), Explain(), Diff(), Status(), Script() };

    private static Command Schema()
    {
        var markdown = new Option<bool>("--markdown") { Description = "As a page of documentation (docs/policies.md)" };
        var command = new Command("schema", "Print every setting as JSON Schema") { markdown };
        command.SetAction(parsed => Console.Out.Write(parsed.GetValue(markdown) ? PolicySchema.ToMarkdown() : PolicySchema.ToJson().ToJsonString(Indented) + "\n"));
        return command;
    }

    private static Command Validate()
    {
        var file = new Argument<string>("FILE") { Description = "The policy's JSON file; - for standard input" };
        var level = new Option<string?>("--level") { Description = $"The level that it is for: {Levels}" };
        var command = new Command("validate", "Check a policy file without a server") { file, level };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var document = await ReadAsync(parsed.GetValue(file)!, cancellationToken);
            if (parsed.GetValue(level) is { } text && Level(text).Problems(document) is { Count: > 0 } problems)
            {
                throw Invalid(new PolicyException(problems));
            }

            Terminal.Result(document, () => Terminal.Line(string.Create(CultureInfo.InvariantCulture, $"valid: decides {document.Settings.Count()} settings")));
        });
        return command;
    }

    private static Command Show()
    {
        var level = new Argument<string>("LEVEL") { Description = Levels };
        var command = new Command("show", "Show what a level decides (administrators)") { level };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            Print(await client.GetPolicyAsync(Level(parsed.GetValue(level)!).ToString(), cancellationToken));
        });
        return command;
    }

    private static Command Set()
    {
        var level = new Argument<string>("LEVEL") { Description = Levels };
        var values = new Argument<string[]>("SETTING=VALUE") { Description = "What to decide; a list as JSON. Other decisions of the level stay", Arity = ArgumentArity.ZeroOrMore };
        var clear = new Option<string[]>("--clear") { Description = "Settings about which the level decides nothing any more", AllowMultipleArgumentsPerToken = true };
        var scripts = new Option<string[]>("--script") { Description = "A check that 'nacre policy script' signed (repeatable): host.scripts is these", DefaultValueFactory = _ => [] };
        var file = new Option<string?>("--file") { Description = "A JSON file with all that the level decides, in place of what it decided before; - for standard input" };
        var command = new Command("set", "Decide (administrators); devices learn it at their next contact") { level, values, clear, scripts, file };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var signed = parsed.GetValue(scripts)!;
            var (texts, taken, path) = (parsed.GetValue(values) ?? [], parsed.GetValue(clear) ?? [], parsed.GetValue(file));
            if (path is null ? texts.Length + taken.Length + signed.Length == 0 : texts.Length + taken.Length + signed.Length > 0)
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, "give SETTING=VALUE, --clear SETTING, --script FILE, or --file alone");
            }

            var at = Level(parsed.GetValue(level)!);
            var changes = Changes(texts, taken); // what is wrong is said before anything is sent
            if (signed.Length > 0)
            {
                changes[Settings.HostScripts.Name] = signed.Select(one => Encoding.UTF8.GetString(HostScript.Parse(ReadText(one, HostScript.LongestFile)).Bytes)).ToArray();
            }

            var whole = path is null ? null : await ReadAsync(path, cancellationToken);
            using var client = Administration.Connect();
            Print(whole is null ? await client.PatchPolicyAsync(at.ToString(), changes, cancellationToken) : await client.PutPolicyAsync(at.ToString(), whole, cancellationToken));
            Terminal.Note($"{at}: devices learn it at their next contact ('nacre policy status')");
        });
        return command;
    }

    private static Command Script()
    {
        var file = new Argument<string>("FILE") { Description = "A shell script; or a signed one that lacks signatures, which are added" };
        var name = new Option<string?>("--name") { Description = "Its name, for people (default: the file's)" };
        var seconds = new Option<int>("--timeout") { Description = "Seconds that it may take, 1 to 300", DefaultValueFactory = _ => 30 };
        var open = new Option<bool>("--fail-open") { Description = "One that does not end in time or can't be run counts as not known (default: as failed)" };
        var days = new Option<int>("--days") { Description = "How long it holds", DefaultValueFactory = _ => 365 };
        var keys = new Option<string[]>("--key") { Description = "A key file of the role targets to sign with, beside this computer's release signing key (repeatable)", DefaultValueFactory = _ => [] };
        var passphrase = new Option<string?>("--passphrase-file") { Description = "A file with the passphrase of the keys" };
        var output = new Option<string>("--output") { Description = "The signed file", Required = true };
        var command = new Command("script", "Sign a script that checks hosts; 'nacre policy set LEVEL --script FILE' has devices run it (docs/operations.md)") { file, name, seconds, open, days, keys, passphrase, output };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var path = parsed.GetValue(file)!;
            var text = ReadText(path, HostScript.LongestFile);
            if (parsed.GetValue(days) is < 1 or > 3650)
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, "--days is 1 to 3650");
            }

            HostScript script;
            if (text.StartsWith('{'))
            {
                script = HostScript.Parse(text);
            }
            else
            {
                var called = parsed.GetValue(name) ?? Path.GetFileNameWithoutExtension(path).ToLowerInvariant();
                if (text.Length is 0 or > HostScript.LongestText || parsed.GetValue(seconds) is < 1 or > HostScript.LongestSeconds)
                {
                    throw new NacreException(ErrorCatalogue.UsageInvalid, $"a script has 1 to {HostScript.LongestText} characters and takes 1 to {HostScript.LongestSeconds} seconds");
                }

                script = HostScript.Write(Names.Parse(called, "a script"), text, parsed.GetValue(seconds), parsed.GetValue(open), 1, TimeProvider.System.GetUtcNow().AddDays(parsed.GetValue(days)));
            }

            using (var own = Administration.SigningKey())
            {
                script = script.SignedBy(own);
            }

            foreach (var one in parsed.GetValue(keys)!)
            {
                using var key = TrustKeys.Open(one, parsed.GetValue(passphrase));
                script = script.SignedBy(key);
            }

            await File.WriteAllBytesAsync(parsed.GetValue(output)!, script.Bytes, cancellationToken);
            Terminal.Result(new { script.Name, script.Expires, Signatures = script.Signatures.Keys }, () =>
                Terminal.Line(string.Create(CultureInfo.InvariantCulture, $"{script.Name}: {script.Signatures.Count} signatures, until {script.Expires:yyyy-MM-dd}")));
        });
        return command;
    }

    private static string ReadText(string path, int longest)
    {
        try
        {
            return new FileInfo(path) is { Exists: true } file && file.Length <= longest ? File.ReadAllText(path) : throw new NacreException(ErrorCatalogue.FileAccess, $"'{path}' is no file of at most {longest} bytes");
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"'{path}': {exception.Message}", exception);
        }
    }

    private static Command Explain()
    {
        var livePc = new Option<string>("--livepc") { Description = "The LivePC", Required = true };
        var device = new Option<string?>("--device") { Description = "The device, whose user's groups count too" };
        var command = new Command("explain", "Say for every setting what holds, and which level decided it (administrators)") { livePc, device };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var policy = await client.ExplainPolicyAsync(parsed.GetValue(livePc)!, parsed.GetValue(device), cancellationToken);
            Terminal.Result(policy, () =>
            {
                Terminal.Line($"version {policy.Version}");
                Terminal.Table(["SETTING", "VALUE", "DECIDED BY"], policy.Settings.Select(setting => new[] { setting.Name, Words(setting.Value), setting.DecidedBy }));
                foreach (var problem in policy.Problems)
                {
                    Terminal.Line(problem);
                }
            });
        });
        return command;
    }

    private static Command Diff()
    {
        var one = new Argument<string>("ONE") { Description = $"A level ({Levels}), or a JSON file" };
        var other = new Argument<string>("OTHER") { Description = "A level, or a JSON file" };
        var command = new Command("diff", "Show what two policies decide differently") { one, other };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var (left, right) = (await FindAsync(parsed.GetValue(one)!, cancellationToken), await FindAsync(parsed.GetValue(other)!, cancellationToken));
            var differences = Settings.All.Select(setting => new { Setting = setting.Name, One = Value(left, setting), Other = Value(right, setting) })
                .Where(row => !JsonNode.DeepEquals(row.One, row.Other)).ToList();
            Terminal.Result(differences, () =>
            {
                if (differences.Count == 0)
                {
                    Terminal.Note("they decide the same");
                    return;
                }

                Terminal.Table(["SETTING", "ONE", "OTHER"], differences.Select(row => new[] { row.Setting, Words(row.One), Words(row.Other) }));
            });
        });
        return command;
    }

    private static Command Status()
    {
        var command = new Command("status", "Show which policy each device enforces (administrators)");
        command.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var enforced = await client.ListEnforcedPoliciesAsync(cancellationToken);
            Terminal.Result(enforced, () => Terminal.Table(["LIVEPC", "USER", "DEVICE", "VERSION", "STATE", "SINCE", "NOTES"], enforced.Select(one => new[]
            {
                one.LivePc, one.User, $"{one.DeviceName} ({one.Device})", one.Version, one.IsCurrent ? "current" : "OUTDATED", one.At.UtcDateTime.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture),
                string.Join("; ", one.FromNextStart.Select(setting => $"{setting} from the next start on").Concat(one.Unenforceable.Select(setting => $"can't enforce {setting}"))
                    .Concat(one.AcceptedTerms is { } terms ? [$"terms {terms} accepted"] : []).Concat(one.HostChecks.Where(check => check.Outcome == "failed").Select(check => $"{check.Check} failed: {check.Detail}"))),
            })));
        });
        return command;
    }

    /// <summary>What was typed, as a merge patch.</summary>
    private static Dictionary<string, object?> Changes(string[] texts, string[] taken)
    {
        var (changes, problems) = (new Dictionary<string, object?>(), new List<string>());
        foreach (var text in texts)
        {
            var sign = text.IndexOf('=', StringComparison.Ordinal);
            if (sign < 1)
            {
                problems.Add($"'{text}' is not SETTING=VALUE");
            }
            else if (Settings.Find(text[..sign]) is not { } setting)
            {
                problems.Add(Settings.Unknown(text[..sign]));
            }
            else if (setting.TryReadTyped(text[(sign + 1)..], out var value, out var problem))
            {
                changes[setting.Name] = setting.Write(value);
            }
            else
            {
                problems.Add(problem);
            }
        }

        foreach (var name in taken)
        {
            if (Settings.Find(name) is not { } setting)
            {
                problems.Add(Settings.Unknown(name));
            }
            else if (!changes.TryAdd(setting.Name, null))
            {
                problems.Add($"'{name}' is decided and cleared at once");
            }
        }

        return problems.Count == 0 ? changes : throw Invalid(new PolicyException(problems));
    }

    private static async Task<PolicyDocument> FindAsync(string untrusted, CancellationToken cancellationToken)
    {
        if (PolicyLevel.TryParse(untrusted) is not { } level)
        {
            return await ReadAsync(untrusted, cancellationToken);
        }

        using var client = Administration.Connect();
        return await client.GetPolicyAsync(level.ToString(), cancellationToken);
    }

    private static async Task<PolicyDocument> ReadAsync(string path, CancellationToken cancellationToken)
    {
        var text = path == "-" ? await Console.In.ReadToEndAsync(cancellationToken) : await File.ReadAllTextAsync(path, cancellationToken);
        try
        {
            return PolicyDocument.Parse(text);
        }
        catch (PolicyException exception)
        {
            throw Invalid(exception);
        }
    }

    private static PolicyLevel Level(string untrusted) =>
        PolicyLevel.TryParse(untrusted) ?? throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{untrusted}' is no level: {Levels}");

    private static NacreException Invalid(PolicyException exception) => new(ErrorCatalogue.PolicyInvalid, exception.Message, exception);

    private static void Print(PolicyDocument document) => Terminal.Result(document, () => Terminal.Line(document.ToJson().ToJsonString(Indented)));

    private static JsonNode? Value(PolicyDocument document, Setting setting) => document.TryGet(setting, out var value) ? setting.Write(value) : null;

    private static string Words(JsonNode? value) => value switch
    {
        null => "-",
        JsonValue one when one.TryGetValue<string>(out var text) => text,
        _ => value.ToJsonString(Indented).ReplaceLineEndings(" "),
    };
}

/// <summary><c>nacre group</c>: groups of users, for which policies are decided.</summary>
internal static class GroupCommands
{
    private static readonly Argument<string> Name = new("GROUP") { Description = "1 to 63 lower-case letters, digits and hyphens" };
    private static readonly Argument<string[]> Users = new("USER") { Description = "Users", Arity = ArgumentArity.OneOrMore };

    public static Command Create() => new("group", "Groups of users, for which policies are decided (administrators)") { Add(), List(), Remove(), Put("put", "Put users into a group", true), Put("drop", "Take users out of a group", false), Order() };

    private static Command Add()
    {
        var command = new Command("add", "Add a group, after the others") { Name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var group = await client.CreateGroupAsync(parsed.GetValue(Name)!, cancellationToken);
            Terminal.Result(group, () => Terminal.Line(group.Name));
        });
        return command;
    }

    private static Command List()
    {
        var command = new Command("list", "List the groups in their order; of a user in several the later one's policy wins");
        command.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            Print(await client.ListGroupsAsync(cancellationToken));
        });
        return command;
    }

    private static Command Remove()
    {
        var command = new Command("remove", "Remove a group and its policy; its users stay") { Name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await client.RemoveGroupAsync(parsed.GetValue(Name)!, cancellationToken);
            Terminal.Note($"{parsed.GetValue(Name)} is removed");
        });
        return command;
    }

    private static Command Put(string word, string description, bool isMember)
    {
        var command = new Command(word, description) { Name, Users };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            foreach (var user in parsed.GetValue(Users)!)
            {
                await client.PutMemberAsync(parsed.GetValue(Name)!, user, isMember, cancellationToken);
            }

            Terminal.Note("done; their devices learn the group's policy at their next contact");
        });
        return command;
    }

    private static Command Order()
    {
        var groups = new Argument<string[]>("GROUP") { Description = "Every group once", Arity = ArgumentArity.OneOrMore };
        var command = new Command("order", "Order the groups; of a user in several the later one's policy wins") { groups };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            Print(await client.OrderGroupsAsync(parsed.GetValue(groups)!, cancellationToken));
        });
        return command;
    }

    private static void Print(IReadOnlyList<Group> groups) =>
        Terminal.Result(groups, () => Terminal.Table(["GROUP", "USERS"], groups.Select(group => new[] { group.Name, string.Join(", ", group.Users) })));
}
