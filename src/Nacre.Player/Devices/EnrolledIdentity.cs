using System.Security.Cryptography;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Trust;

namespace Nacre.Player.Devices;

/// <summary>What the device has been told to trust, kept in <c>device.json</c>.</summary>
/// <param name="Server">The server's address.</param>
/// <param name="DeviceId">The device's identity there.</param>
/// <param name="User">Whose device it is.</param>
/// <param name="Organisation">The organisation's name.</param>
/// <param name="ReleaseKey">Of a device that enrolled before there were trust roots: the key that begins its trust. Null of any other.</param>
/// <param name="LeaseKey">Signs leases.</param>
public sealed record DeviceRecord(Uri Server, string DeviceId, string User, string Organisation, PublicKey? ReleaseKey, PublicKey LeaseKey);

/// <summary>This device's identity: what it trusts, and the key that nobody else has.</summary>
public sealed class EnrolledIdentity : IDisposable
{
    private readonly PlayerPaths paths;

    private EnrolledIdentity(PlayerPaths paths, DeviceRecord record, DeviceKey key)
    {
        this.paths = paths;
        Record = record;
        Key = key;
    }

    /// <summary>What the device trusts.</summary>
    public DeviceRecord Record { get; }

    /// <summary>The device's key.</summary>
    public DeviceKey Key { get; }

    /// <summary>Enrols this device.</summary>
    /// <param name="paths">The player's folders.</param>
    /// <param name="server">The server's address.</param>
    /// <param name="untrustedCode">The code as typed.</param>
    /// <param name="deviceName">For people.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="NacreException">AlreadyEnrolled, EnrolmentCodeWrong/Expired/Used, ServerUnreachable, ServerNotAuthentic.</exception>
    public static async Task<DeviceRecord> EnrolAsync(
        PlayerPaths paths, Uri server, string untrustedCode, string deviceName, CancellationToken cancellationToken)
    {
        if (File.Exists(RecordPath(paths)))
        {
            throw new NacreException(ErrorCatalogue.AlreadyEnrolled, "this device is enrolled already");
        }

        if (!EnrolmentCode.TryParse(untrustedCode, out var code))
        {
            throw new NacreException(ErrorCatalogue.EnrolmentCodeWrong, "an enrolment code has 24 letters and digits");
        }

        if (!File.Exists(SecretPath(paths)))
        {
            DurableFile.Write(SecretPath(paths), RandomNumberGenerator.GetBytes(32));
        }

        // The key is kept before it is used: an answer lost on the way is asked for again with the same key.
        var key = OpenKey(paths) ?? DeviceKey.Create();
        using (key)
        {
            DurableFile.Write(KeyPath(paths), key.ExportPkcs8());
            using var client = new NacreClient(server);
            var enrolled = await client.EnrolAsync(code, deviceName, key, cancellationToken).ConfigureAwait(false);
            var record = new DeviceRecord(server, enrolled.DeviceId, enrolled.User, enrolled.Organisation, null, enrolled.LeaseKey);
            using (var identity = new EnrolledIdentity(paths, record, OpenKey(paths)!))
            {
                DeviceTrust.Begin(identity, enrolled.Root, TimeProvider.System);
            }

            DurableFile.WriteJson(RecordPath(paths), record);
            return record;
        }
    }

    /// <summary>Opens this device's identity.</summary>
    /// <exception cref="NacreException">NotEnrolled.</exception>
    public static EnrolledIdentity Open(PlayerPaths paths)
    {
        var record = DurableFile.ReadJson<DeviceRecord>(RecordPath(paths));
        return record is not null && OpenKey(paths) is { } key
            ? new EnrolledIdentity(paths, record, key)
            : throw new NacreException(ErrorCatalogue.NotEnrolled, "this device is not enrolled");
    }

    /// <summary>What this device trusts: see <see cref="DeviceTrust"/>.</summary>
    internal string TrustPath => Path.Combine(paths.State, "trust");

    /// <summary>A client with this device's credential.</summary>
    public NacreClient Connect() => new(Record.Server, Credential.Device(Record.DeviceId, Key));

    /// <inheritdoc/>
    public void Dispose() => Key.Dispose();

    /// <summary>This device's part of the key that opens its volumes: 32 random bytes that never leave it.</summary>
    internal byte[] ReadSecret() => File.ReadAllBytes(SecretPath(paths)) is { Length: 32 } secret
        ? secret
        : throw new NacreException(ErrorCatalogue.VolumeDamaged, $"'{SecretPath(paths)}' is not this device's secret");

    private static string SecretPath(PlayerPaths paths) => Path.Combine(paths.State, "device.secret");

    private static string RecordPath(PlayerPaths paths) => Path.Combine(paths.State, "device.json");

    private static string KeyPath(PlayerPaths paths) => Path.Combine(paths.State, "device.key");

    private static DeviceKey? OpenKey(PlayerPaths paths) => File.Exists(KeyPath(paths)) ? DeviceKey.Import(File.ReadAllBytes(KeyPath(paths))) : null;
}
