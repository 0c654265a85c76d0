using System.Text.Json;
using System.Text.Json.Serialization;
using Nacre.Contracts;
using Nacre.Images.FileSystems;
using Nacre.Player.Machines;
using Nacre.Player.Stacks;
using Nacre.Volumes.Releases;

namespace Nacre.Player.UserPackages;

/// <summary>A package that the user installed.</summary>
/// <param name="Package">Its name; a foreign architecture's as <c>NAME:ARCHITECTURE</c>.</param>
/// <param name="Version">Its version.</param>
public sealed record UserPackage(string Package, string Version);

/// <summary>A package of the user's that new corporate layers can't carry.</summary>
/// <param name="Package">Its name.</param>
/// <param name="Version">Its version.</param>
/// <param name="Reason">Why, for a person: what it depends on, conflicts with, or breaks.</param>
public sealed record UserPackageConflict(string Package, string Version, string Reason);

/// <summary>What new corporate layers mean for the packages that the user installed.</summary>
/// <param name="Carried">Those that go on under the new layers.</param>
/// <param name="Replaced">Those that the new layers have themselves, in the same version or a higher one.</param>
/// <param name="Conflicts">Those that the new layers can't carry.</param>
public sealed record UserPackageFinding(
    [property: JsonRequired] IReadOnlyList<UserPackage> Carried,
    [property: JsonRequired] IReadOnlyList<string> Replaced,
    [property: JsonRequired] IReadOnlyList<UserPackageConflict> Conflicts);

/// <summary>Finds out before a switch what new corporate layers mean for the user's packages: their own list of packages is shown to the running guest.</summary>
internal static class UserPackageCheck
{
    private const string StatusPath = "/var/lib/dpkg/status";

    /// <summary>A desktop's list has two megabytes.</summary>
    private const int LargestStatus = 32 << 20;

    // An older guest has no such program: nothing of the user's is merged there either.
    private const string Script = "test -x /usr/lib/nacre/applications || exit 4; exec /usr/lib/nacre/applications check /dev/stdin";
    private const int Carried = 0, Conflicting = 3, Unknown = 4;

    /// <summary>Reads what corporate layers have installed, fetching only what that takes.</summary>
    /// <returns>dpkg's status file of the system with the application layers' parts behind it; null where the system has none.</returns>
    public static async Task<byte[]?> ReadStatusAsync(OpenReleases releases, CancellationToken cancellationToken)
    {
        if (await ErofsFiles.ReadAsync(new ReleaseVolume(releases.System, "system"), StatusPath, LargestStatus, cancellationToken).ConfigureAwait(false) is not { } status)
        {
            return null;
        }

        foreach (var ((_, layer), release) in releases.Layers.Zip(releases.Stack.Layers))
        {
            var part = await ErofsFiles.ReadAsync(layer, $"/usr/share/nacre/application-layers/{release.Image}/status", LargestStatus, cancellationToken).ConfigureAwait(false);
            status = [.. status, (byte)'\n', .. part ?? []];
        }

        return status;
    }

    /// <summary>Asks the guest.</summary>
    /// <param name="execute">Runs a command in the guest as root, with its input.</param>
    /// <param name="status">What the new corporate layers have, as stanzas of dpkg's status file; application layers' parts behind the system's.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <returns>What was found; null where the guest merges no packages.</returns>
    /// <exception cref="NacreException">GuestFailed.</exception>
    public static async Task<UserPackageFinding?> AskAsync(
        Func<IReadOnlyList<string>, byte[], CancellationToken, Task<GuestCommandResult>> execute, byte[] status, CancellationToken cancellationToken)
    {
        var answer = await execute(["/bin/sh", "-c", Script], status, cancellationToken).ConfigureAwait(false);
        switch (answer.ExitCode)
        {
            case Carried or Conflicting:
                try
                {
                    return Parse(JsonSerializer.Deserialize<UserPackageFinding>(answer.Output, ContractJson.Options) ?? throw new JsonException("null"));
                }
                catch (JsonException exception)
                {
                    throw new NacreException(ErrorCatalogue.GuestFailed, "the guest said something else than what becomes of the user's packages", exception);
                }

            case Unknown:
                return null;
            default:
                throw new NacreException(ErrorCatalogue.GuestFailed, $"the guest could not find out what becomes of the user's packages: {System.Text.Encoding.UTF8.GetString(answer.Error).Trim()}");
        }
    }

    private static UserPackageFinding Parse(UserPackageFinding untrusted) => new(
        [.. untrusted.Carried.Select(package => package with { Package = Line(package.Package), Version = Line(package.Version) })],
        [.. untrusted.Replaced.Select(Line)],
        [.. untrusted.Conflicts.Select(conflict => new UserPackageConflict(Line(conflict.Package), Line(conflict.Version), Line(conflict.Reason)))]);

    private static string Line(string? untrusted) => GuestText.Plain(untrusted ?? throw new JsonException("a text is missing")).Replace('\n', ' ');
}
