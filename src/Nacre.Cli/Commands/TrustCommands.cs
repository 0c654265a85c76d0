using System.CommandLine;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;
using Nacre.Contracts.Trust;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre trust</c>: who may sign what devices believe.</summary>
internal static class TrustCommands
{
    private static readonly Option<string[]> Keys = new("--key") { Description = "A private key file to sign with, besides this computer's release signing key (repeatable)", DefaultValueFactory = _ => [] };
    private static readonly Option<string?> PassphraseFile = new("--passphrase-file") { Description = "File with the key files' passphrase (default: asks at the terminal)" };
    private static readonly Option<string[]> Root = new("--root") { Description = "A public key (FILE.pub) that signs roots from now on (repeatable: all of them)", DefaultValueFactory = _ => [] };
    private static readonly Option<int?> Threshold = new("--threshold") { Description = "How many of the root keys must sign (default: 1)" };
    private static readonly Option<string[]> Targets = new("--targets") { Description = "A public key (FILE.pub) that says who signs which image (repeatable: all of them)", DefaultValueFactory = _ => [] };
    private static readonly Option<int?> TargetsThreshold = new("--targets-threshold") { Description = "How many of the targets keys must sign (default: 1)" };
    private static readonly Option<int> Days = new("--days") { Description = "How long what is signed holds", DefaultValueFactory = _ => 365 };
    private static readonly Option<string> Output = new("--output", "-o") { Description = "The folder for files that lack signatures", DefaultValueFactory = _ => "trust" };

    public static Command Create() => new("trust", "Who may sign what devices believe: root, targets and publishers (administrators)") { Key(), Init(), Sign(), Rotate(), Status() };

    private static Command Key()
    {
        var file = new Argument<string>("FILE") { Description = "The private key to make; FILE.pub is the public one" };
        var command = new Command("key", "Make a key under a passphrase; needs no network and no server") { file, PassphraseFile };
        command.SetAction(parsed =>
        {
            var key = TrustKeys.Create(parsed.GetValue(file)!, parsed.GetValue(PassphraseFile));
            Terminal.Result(new { key.Id, PublicKey = parsed.GetValue(file) + ".pub" }, () => Terminal.Line(key.Id));
            Terminal.Note($"{parsed.GetValue(file)} signs: keep it and its passphrase apart from this computer; {parsed.GetValue(file)}.pub is for everybody");
        });
        return command;
    }

    private static Command Init()
    {
        var command = new Command("init", "Begin the trust: without options with this computer's release signing key, as the first 'image publish' or 'device code' does by itself")
        {
            Root, Threshold, Targets, TargetsThreshold, Days, Keys, PassphraseFile, Output,
        };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            if ((await client.GetTrustAsync(cancellationToken)).Files.Count > 0)
            {
                throw new NacreException(ErrorCatalogue.AlreadyExists, "the organisation has a trust root: 'nacre trust rotate' changes its keys");
            }

            var desk = new TrustDesk(client, TimeProvider.System);
            if (parsed.GetValue(Root) is [])
            {
                await desk.EnsureAsync(cancellationToken);
                Terminal.Note("the trust has begun with this computer's release signing key; 'nacre trust rotate --root …' hands it over to keys that are kept elsewhere");
                return;
            }

            await FinishAsync(desk, Change(parsed), parsed, cancellationToken);
        });
        return command;
    }

    private static Command Rotate()
    {
        var online = new Option<bool>("--online") { Description = "Give the server a new online key (timestamp, snapshot): after a break-in there" };
        var publisher = new Option<string?>("--publisher") { Description = "The public key (FILE.pub) that signs releases from now on; the one before is revoked" };
        var images = new Option<string[]>("--image") { Description = "The images that --publisher is for (repeatable; default: all that there are)", DefaultValueFactory = _ => [] };
        var without = new Option<string[]>("--without") { Description = "A release IMAGE/VERSION that devices shall not start any more (repeatable)", DefaultValueFactory = _ => [] };
        var command = new Command("rotate", "Change keys, or without options put off the end of every role; what lacks signatures is written to files for 'trust sign'")
        {
            Root, Threshold, Targets, TargetsThreshold, online, publisher, images, without, Days, Keys, PassphraseFile, Output,
        };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var change = Change(parsed) with
            {
                RenewsOnlineKey = parsed.GetValue(online),
                Publisher = parsed.GetValue(publisher) is { } file ? TrustKeys.ReadPublic(file) : null,
                Images = parsed.GetValue(images)!,
                Without = [.. parsed.GetValue(without)!.Select(ParseRelease)],
            };
            await FinishAsync(new TrustDesk(client, TimeProvider.System), change, parsed, cancellationToken);
        });
        return command;
    }

    private static Command Sign()
    {
        var file = new Argument<string>("FILE") { Description = "root.json, targets.json or image.NAME.json, as 'trust init' or 'trust rotate' wrote it; it is signed in place" };
        var send = new Option<bool>("--send") { Description = "Give the file to the server, which takes it once it has enough signatures" };
        var command = new Command("sign", "Sign a file with key files; needs no network, so that root keys can stay on a computer without one") { file, Keys, PassphraseFile, send };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var path = parsed.GetValue(file)!;
            var role = Path.GetFileNameWithoutExtension(path);
            if (parsed.GetValue(Keys) is [] && !parsed.GetValue(send))
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, "nothing to do: give --key FILE to sign with, or --send");
            }

            if (new FileInfo(path) is not { Exists: true, Length: <= TrustMetadata.LongestFile })
            {
                throw new NacreException(ErrorCatalogue.FileAccess, $"'{path}' is not a file of trust metadata");
            }

            var content = await File.ReadAllBytesAsync(path, cancellationToken);
            var metadata = TrustMetadata.Parse(content, role);
            foreach (var one in parsed.GetValue(Keys)!)
            {
                using var key = TrustKeys.Open(one, parsed.GetValue(PassphraseFile));
                content = TrustMetadata.Sign(content, key);
            }

            await File.WriteAllBytesAsync(path + ".new", content, cancellationToken);
            File.Move(path + ".new", path, overwrite: true);
            var signed = TrustMetadata.Parse(content, role);
            Terminal.Result(new { role, metadata.Version, metadata.Expires, Signatures = signed.Signatures.Keys }, () =>
            {
                Terminal.Line(string.Create(CultureInfo.InvariantCulture, $"{role} version {metadata.Version}, until {metadata.Expires:yyyy-MM-dd}, {signed.Signatures.Count} signatures"));
                foreach (var id in signed.Signatures.Keys)
                {
                    Terminal.Line($"  {id}");
                }
            });
            if (parsed.GetValue(send))
            {
                using var client = Administration.Connect();
                await new TrustDesk(client, TimeProvider.System).SendAsync([new TrustDraft(role, content, 0)], cancellationToken);
                Terminal.Note("the server has taken it");
            }
        });
        return command;
    }

    private static Command Status()
    {
        var command = new Command("status", "Show every role: its version, its end, its keys, and what ends soon");
        command.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var (files, root) = await new TrustDesk(client, TimeProvider.System).ReadAsync(cancellationToken);
            var roles = files.Select(pair => TrustMetadata.Parse(Encoding.UTF8.GetBytes(pair.Value), pair.Key)).ToArray();
            var images = roles.OfType<TargetsMetadata>().FirstOrDefault(role => role.Role == "targets")?.Images;
            var rows = roles.Select(role => (Metadata: role, Signers: role.Role switch
            {
                "root" => root.Root,
                "targets" => root.Targets,
                "snapshot" => root.Snapshot,
                "timestamp" => root.Timestamp,
                _ => images?.GetValueOrDefault(role.Role["image.".Length..]),
            })).OrderBy(row => row.Signers is null).ThenBy(row => row.Metadata.Role, StringComparer.Ordinal).ToArray();
            var warnings = TrustWarning.Of(roles, TimeProvider.System.GetUtcNow());
            Terminal.Result(new
            {
                Roles = rows.Select(row => new
                {
                    row.Metadata.Role, row.Metadata.Version, row.Metadata.Expires, row.Signers?.Threshold, Keys = row.Signers?.Keys.Select(key => key.Id),
                    Valid = row.Signers is { } signers && signers.Count(row.Metadata) >= signers.Threshold,
                }),
                Warnings = warnings,
            }, () =>
            {
                Terminal.Table(["ROLE", "VERSION", "UNTIL", "SIGNED", "KEYS"], rows.Select(row => new[]
                {
                    row.Metadata.Role, $"{row.Metadata.Version}", row.Metadata.Expires.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture),
                    row.Signers is { } signers ? $"{signers.Count(row.Metadata)} of {signers.Threshold}" : "not delegated",
                    string.Join(" ", row.Signers?.Keys.Select(key => key.Id[..12]) ?? []),
                }));
                foreach (var warning in warnings)
                {
                    Terminal.Line($"{warning}");
                }
            });
        });
        return command;
    }

    private static TrustChange Change(ParseResult parsed) => new()
    {
        Root = parsed.GetValue(Root) is [_, ..] root ? [.. root.Select(TrustKeys.ReadPublic)] : null,
        Threshold = parsed.GetValue(Threshold),
        Targets = parsed.GetValue(Targets) is [_, ..] targets ? [.. targets.Select(TrustKeys.ReadPublic)] : null,
        TargetsThreshold = parsed.GetValue(TargetsThreshold),
        Life = parsed.GetValue(Days) is >= 1 and <= 3650 and var days ? TimeSpan.FromDays(days) : throw new NacreException(ErrorCatalogue.UsageInvalid, "--days is 1 to 3650"),
    };

    private static ReleaseName ParseRelease(string untrusted) =>
        untrusted.Split('/') is [var image, var version] && Names.IsValid(image) && int.TryParse(version, NumberStyles.None, CultureInfo.InvariantCulture, out var number)
            ? new ReleaseName(image, number) : throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{untrusted}' is not a release such as debian-desktop/3");

    /// <summary>Sends what is complete; as soon as something is not, it and all after it go to files.</summary>
    private static async Task FinishAsync(TrustDesk desk, TrustChange change, ParseResult parsed, CancellationToken cancellationToken)
    {
        var keys = new List<ECDsa> { Administration.SigningKey() };
        try
        {
            keys.AddRange(parsed.GetValue(Keys)!.Select(file => TrustKeys.Open(file, parsed.GetValue(PassphraseFile))));
            var drafts = await desk.DraftAsync(change, keys, cancellationToken);
            var complete = drafts.TakeWhile(draft => draft.Missing == 0).ToArray();
            await desk.SendAsync(complete, cancellationToken);
            var folder = parsed.GetValue(Output)!;
            var rest = drafts.Skip(complete.Length).ToArray();
            foreach (var draft in rest)
            {
                Directory.CreateDirectory(folder);
                await File.WriteAllBytesAsync(Path.Combine(folder, draft.Role + ".json"), draft.File, cancellationToken);
            }

            Terminal.Result(
                new { Sent = complete.Select(draft => draft.Role), Files = rest.Select(draft => new { draft.Role, File = Path.Combine(folder, draft.Role + ".json"), draft.Missing }) }, () =>
                {
                    foreach (var draft in complete)
                    {
                        Terminal.Line($"{draft.Role}: the server has it");
                    }

                    foreach (var draft in rest)
                    {
                        var path = Path.Combine(folder, draft.Role + ".json");
                        Terminal.Line(draft.Missing == 0 ? $"{path}: complete, and waits for the ones above: nacre trust sign {path} --send"
                            : $"{path}: lacks {draft.Missing} signatures: nacre trust sign {path} --key FILE, then with --send");
                    }
                });
        }
        finally
        {
            keys.ForEach(key => key.Dispose());
        }
    }
}
