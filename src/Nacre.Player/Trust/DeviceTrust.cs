using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Nacre.Player.Devices;

namespace Nacre.Player.Trust;

/// <summary>The device's trusted metadata, in the file <c>trust</c> under an HMAC as others of this device's. From it, and from nothing else, the device tells which releases
/// are the organisation's.</summary>
internal sealed class DeviceTrust
{
    private readonly AuthenticatedFile<TrustedFiles> file;
    private readonly EnrolledIdentity identity;
    private readonly TimeProvider time;
    private TrustedFiles? files;

    /// <exception cref="NacreException">TrustNotAuthentic: somebody else wrote the file.</exception>
    public DeviceTrust(EnrolledIdentity identity, TimeProvider time)
    {
        this.identity = identity;
        this.time = time;
        file = new AuthenticatedFile<TrustedFiles>(identity.TrustPath, identity, $"nacre trust of {identity.Record.DeviceId}");
        if (!file.TryRead(out files))
        {
            throw new NacreException(ErrorCatalogue.TrustNotAuthentic, $"what this device trusts was changed ('{file.Path}')");
        }
    }

    /// <summary>Why no release is taken that the device does not have yet; null where one may be.</summary>
    public NacreException? Problem { get; private set; }

    /// <summary>Roles that end soon.</summary>
    public IReadOnlyList<TrustWarning> Warnings => files is null ? [] : TrustWarning.Of(files.Roles(), time.GetUtcNow());

    /// <summary>Begins the trust at enrolment.</summary>
    /// <exception cref="NacreException">ServerNotAuthentic: the root does not sign itself.</exception>
    public static void Begin(EnrolledIdentity identity, string root, TimeProvider time)
    {
        try
        {
            new DeviceTrust(identity, time).Keep(TrustedFiles.Begin(root));
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.TrustNotAuthentic || exception.Kind == ErrorCatalogue.Unsupported)
        {
            throw new NacreException(ErrorCatalogue.ServerNotAuthentic, "the server's trust root can't be used: " + exception.Message, exception);
        }
    }

    /// <summary>Asks the server for news. Whatever goes wrong, what was trusted before stays trusted, and <see cref="Problem"/> says why nothing new is taken.</summary>
    public async Task UpdateAsync(NacreClient client, IReadOnlyCollection<string> images, CancellationToken cancellationToken)
    {
        try
        {
            files ??= await AdoptAsync(client, cancellationToken).ConfigureAwait(false);
            Keep(await files.UpdateAsync(images, client.FetchTrustFileAsync, time.GetUtcNow(), Keep, cancellationToken).ConfigureAwait(false));
            Problem = null;
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.ServerUnreachable)
        {
            Check(images);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.TrustNotAuthentic || exception.Kind == ErrorCatalogue.TrustExpired
            || exception.Kind == ErrorCatalogue.Unsupported || exception.Kind == ErrorCatalogue.TooLarge || exception.Kind == ErrorCatalogue.TrustMissing)
        {
            Problem = exception;
        }
    }

    /// <summary>Looks, without asking the server, whether what is trusted has ended.</summary>
    public void Check(IReadOnlyCollection<string> images)
    {
        try
        {
            Problem = null;
            files?.CheckFresh(images, time.GetUtcNow());
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.TrustExpired)
        {
            Problem = exception;
        }
    }

    /// <summary>Whether the organisation vouches for a release: its manifest is, byte for byte, a target of the newest trusted metadata.</summary>
    public bool Vouches(ReleaseName release, string manifest) => files?.Vouches(release, manifest) == true;

    /// <summary>The organisation's recovery key; null where what the server gives as one is not vouched for.</summary>
    public TrustKey? RecoveryKey(string? untrustedPem) => untrustedPem is not null && files?.IsRecoveryKey(untrustedPem) == true ? TrustKey.Parse(untrustedPem) : null;

    /// <summary>Requires that enough of the root's targets keys signed a script that checks hosts, and that it has not ended.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic, TrustExpired, TrustMissing.</exception>
    public void Verify(HostScript untrusted)
    {
        var root = RootMetadata.Parse((files ?? throw new NacreException(ErrorCatalogue.TrustMissing, "this device has no trust root")).Root);
        root.Targets.Verify(untrusted);
        if (untrusted.Expires <= time.GetUtcNow())
        {
            throw new NacreException(ErrorCatalogue.TrustExpired, string.Create(CultureInfo.InvariantCulture, $"the host script '{untrusted.Name}' ended on {untrusted.Expires:yyyy-MM-dd}"));
        }
    }

    /// <summary>A report to the server: the same one for a day, however often the reason is met.</summary>
    public SendReport? Report(IReadOnlyList<ReleaseName> stack)
    {
        if (Problem is null)
        {
            return null;
        }

        var now = time.GetUtcNow();
        var digest = SHA256.HashData(Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{identity.Record.DeviceId} {Problem.Kind.Code} {now.UtcDateTime:yyyy-MM-dd}")));
        return new SendReport(Convert.ToHexStringLower(digest)[..32], now, ReportKind.Trust, stack, Problem.Message[..Math.Min(Problem.Message.Length, 1000)], "");
    }

    /// <summary>A device that enrolled with an earlier version knows one key, which signed releases. It takes the first root where that key signed it and is one of its own.</summary>
    private async Task<TrustedFiles> AdoptAsync(NacreClient client, CancellationToken cancellationToken)
    {
        if (identity.Record.ReleaseKey is not { } known || await client.FetchTrustFileAsync("1.root.json", TrustMetadata.LongestFile, cancellationToken).ConfigureAwait(false) is not { } bytes)
        {
            throw new NacreException(ErrorCatalogue.TrustMissing, "this device has no trust root");
        }

        var begun = TrustedFiles.Begin(Encoding.UTF8.GetString(bytes));
        var root = RootMetadata.Parse(begun.Root);
        var id = TrustKey.From(known).Id;
        if (root.Version != 1 || root.Root.Keys.All(key => key.Id != id) || new TrustRole([TrustKey.From(known)], 1).Count(root) != 1)
        {
            throw new NacreException(ErrorCatalogue.TrustNotAuthentic, "the first trust root is not signed by the release signing key that this device knows");
        }

        Keep(begun);
        return begun;
    }

    private void Keep(TrustedFiles value)
    {
        if (value != files)
        {
            file.Write(value);
            files = value;
        }
    }
}
