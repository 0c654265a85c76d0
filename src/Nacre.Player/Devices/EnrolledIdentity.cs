using System.Security.Cryptography;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Tpm;
using Nacre.Player.Trust;

namespace Nacre.Player.Devices;

/// <summary>What the device has been told to trust, kept in <c>device.json</c>.</summary>
/// <param name="Server">The server's address.</param>
/// <param name="DeviceId">The device's identity there.</param>
/// <param name="User">Whose device it is.</param>
/// <param name="Organisation">The organisation's name.</param>
/// <param name="ReleaseKey">Of a device that enrolled before there were trust roots: the key that begins its trust. Null of any other.</param>
/// <param name="LeaseKey">Signs leases.</param>
/// <param name="Authorities">Whose certificates it believes the server, PEM; null: those that this computer trusts.</param>
public sealed record DeviceRecord(Uri Server, string DeviceId, string User, string Organisation, PublicKey? ReleaseKey, PublicKey LeaseKey, string? Authorities = null);

/// <summary>Where a device's key is made.</summary>
public enum DeviceKeyPlace
{
    /// <summary>In the TPM where one answers, else in a file.</summary>
    Auto,

    /// <summary>In the TPM.</summary>
    Tpm,

    /// <summary>In a file that only its user can read.</summary>
    File,
}

/// <summary>This device's identity: what it trusts, and the key that nobody else has.</summary>
public sealed class EnrolledIdentity : IDisposable
{
    private readonly PlayerPaths paths;
    private TlsIdentity? tls;

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

    /// <summary>Makes sure that this device is not enrolled.</summary>
    /// <exception cref="NacreException">AlreadyEnrolled.</exception>
    public static void RequireNone(PlayerPaths paths)
    {
        if (File.Exists(RecordPath(paths)))
        {
            throw new NacreException(ErrorCatalogue.AlreadyEnrolled, "this device is enrolled already");
        }
    }

    /// <summary>Enrols this device.</summary>
    /// <param name="paths">The player's folders.</param>
    /// <param name="server">The server's address.</param>
    /// <param name="untrustedCode">The code as typed.</param>
    /// <param name="deviceName">For people.</param>
    /// <param name="place">Where the device's key is made.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <returns>What the device trusts, whether it waits for approval, and whether its key is in the TPM.</returns>
    /// <exception cref="NacreException">AlreadyEnrolled, EnrolmentCodeWrong/Expired/Used, ServerUnreachable, ServerNotAuthentic; FileAccess: there is no TPM.</exception>
    public static async Task<(DeviceRecord Record, bool Waits, bool IsInTpm)> EnrolAsync(
        PlayerPaths paths, Uri server, string untrustedCode, string deviceName, DeviceKeyPlace place, CancellationToken cancellationToken)
    {
        RequireNone(paths);
        if (!EnrolmentCode.TryParse(untrustedCode, out var code))
        {
            throw new NacreException(ErrorCatalogue.EnrolmentCodeWrong, "an enrolment code has 24 letters and digits");
        }

        // The keys are kept before they are used: an answer lost on the way is asked for again with the same keys.
        using var key = OpenKey(paths) ?? await MakeKeyAsync(paths, place, cancellationToken).ConfigureAwait(false);
        if (place == DeviceKeyPlace.Tpm && !key.IsInHardware)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"an enrolment that did not end made this device's key in '{KeyPath(paths)}': remove that file, or leave --key out");
        }

        if (!File.Exists(SecretPath(paths)))
        {
            DeviceSecrets.Write(SecretPath(paths), key, RandomNumberGenerator.GetBytes(32));
        }

        if (TlsIdentity.Read(TlsPath(paths), key) is not { } tls)
        {
            tls = TlsIdentity.Create();
            tls.Write(TlsPath(paths), key);
        }

        using (tls)
        {
            using var client = new NacreClient(server, trust: ServerTrust.ByCode());
            var enrolled = await client.EnrolAsync(code, deviceName, key, tls.PublicKey, cancellationToken).ConfigureAwait(false);
            var record = new DeviceRecord(server, enrolled.DeviceId, enrolled.User, enrolled.Organisation, null, enrolled.LeaseKey, enrolled.Authorities);
            using (var certified = tls.With(enrolled.Certificate))
            {
                certified.Write(TlsPath(paths), key);
            }

            using (var identity = new EnrolledIdentity(paths, record, OpenKey(paths)!))
            {
                DeviceTrust.Begin(identity, enrolled.Root, TimeProvider.System);
            }

            DurableFile.WriteJson(RecordPath(paths), record);
            return (record, enrolled.Waits, key.IsInHardware);
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

    /// <summary>What this device knows of the time: see <see cref="Leases.TrustedClock"/>.</summary>
    internal string ClockPath => Path.Combine(paths.State, "clock");

    /// <summary>A client with this device's credential.</summary>
    /// <param name="isLong">Whether it is for one connection that stays, and carries several requests at once.</param>
    public NacreClient Connect(bool isLong = false) => Connect(TimeProvider.System, isLong);

    /// <summary>Fetches the next certificate of this device for TLS, once two thirds of the life of the one that it has are over. That goes on for its time, so what is interrupted, or fails
    /// because the server is away, is simply done the next time.</summary>
    /// <param name="time">The clock.</param>
    /// <param name="cancellationToken">Stops.</param>
    public async Task RenewCertificateAsync(TimeProvider time, CancellationToken cancellationToken)
    {
        if (Tls is { } tls && tls.IsDue(time.GetUtcNow()))
        {
            try
            {
                await RenewCertificateAsync(tls, time, cancellationToken).ConfigureAwait(false);
            }
            catch (NacreException)
            {
                // Where it matters, the request that follows says what is wrong.
            }
        }
    }

    /// <summary>Fetches a certificate in any case.</summary>
    /// <returns>When it ends.</returns>
    /// <exception cref="NacreException">ServerUnreachable, ServerNotAuthentic, DeviceRevoked, DeviceWaiting; RequestInvalid: the server gives none.</exception>
    public async Task<DateTimeOffset> FetchCertificateAsync(TimeProvider time, CancellationToken cancellationToken)
    {
        await RenewCertificateAsync(Tls, time, cancellationToken).ConfigureAwait(false);
        return Tls!.Certificate!.NotAfter;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        tls?.Dispose();
        Key.Dispose();
    }

    /// <summary>This device's part of the key that opens its volumes: 32 random bytes that never leave it.</summary>
    internal byte[] ReadSecret() => DeviceSecrets.Read(SecretPath(paths), Key) is { Length: 32 } secret
        ? secret
        : throw new NacreException(ErrorCatalogue.VolumeDamaged, $"'{SecretPath(paths)}' is not this device's secret");

    private TlsIdentity? Tls => tls ??= TlsIdentity.Read(TlsPath(paths), Key);

    private NacreClient Connect(TimeProvider time, bool isLong = false) =>
        new(Record.Server, Credential.Device(Record.DeviceId, Key, Record.Server.Scheme == "https" ? () => Tls?.Certificate : null), time, trust: ServerTrust.Of(Record.Authorities), isLong: isLong);

    private async Task RenewCertificateAsync(TlsIdentity? before, TimeProvider time, CancellationToken cancellationToken)
    {
        // One process at a time: of two new certificates the server would take one only.
        using var turn = await TakeTurnAsync(cancellationToken).ConfigureAwait(false);
        var kept = TlsIdentity.Read(TlsPath(paths), Key);
        if (kept is not null && before is not null && kept.Certificate?.SerialNumber != before.Certificate?.SerialNumber)
        {
            (tls, kept) = (kept, tls); // another process was faster
            kept?.Dispose();
            return;
        }

        using var next = TlsIdentity.Create();
        using var client = Connect(time);
        var answer = await client.RenewCertificateAsync(next.PublicKey, cancellationToken).ConfigureAwait(false);
        var certified = next.With(answer.Certificate);
        certified.Write(TlsPath(paths), Key);
        kept?.Dispose();
        tls = certified; // the one before may be in use by a connection that begins
    }

    private async Task<FileStream> TakeTurnAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            try
            {
                return new FileStream(TlsPath(paths) + ".lock", FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException exception) when ((exception.HResult & 0xFFFF) is not (28 or 122))
            {
                await Task.Delay(100, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private static async Task<DeviceKey> MakeKeyAsync(PlayerPaths paths, DeviceKeyPlace place, CancellationToken cancellationToken)
    {
        if (place == DeviceKeyPlace.Tpm || (place == DeviceKeyPlace.Auto && await TpmTools.AnswersAsync(cancellationToken).ConfigureAwait(false)))
        {
            try
            {
                var made = await TpmKey.CreateAsync(paths.State, cancellationToken).ConfigureAwait(false);
                DurableFile.WriteJson(TpmPath(paths), made.Record);
                return DeviceKey.Of(made);
            }
            catch (NacreException) when (place == DeviceKeyPlace.Auto)
            {
                // One that this user may not have keys made in, or that is full.
            }
        }

        var key = DeviceKey.Create();
        DurableFile.Write(KeyPath(paths), key.ExportPkcs8());
        return key;
    }

    private static string TlsPath(PlayerPaths paths) => Path.Combine(paths.State, "device.tls");

    private static string TpmPath(PlayerPaths paths) => Path.Combine(paths.State, "device.tpm");

    private static string SecretPath(PlayerPaths paths) => Path.Combine(paths.State, "device.secret");

    private static string RecordPath(PlayerPaths paths) => Path.Combine(paths.State, "device.json");

    private static string KeyPath(PlayerPaths paths) => Path.Combine(paths.State, "device.key");

    private static DeviceKey? OpenKey(PlayerPaths paths) => DurableFile.ReadJson<TpmKeyRecord>(TpmPath(paths)) is { } inTpm
        ? DeviceKey.Of(TpmKey.Open(inTpm))
        : File.Exists(KeyPath(paths)) ? DeviceKey.Import(File.ReadAllBytes(KeyPath(paths))) : null;
}
