using System.Diagnostics;
using System.Security.Cryptography;
using System.Text.Json;
using Jose;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Tpm;
using Nacre.Testing;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>The device's key in a TPM: what it does there, and that a copy of everything on the disk does not do it elsewhere.</summary>
[Collection("NACRE_HOME")]
public sealed class TpmKeyTests : IDisposable
{
    private readonly TemporaryDirectory home = new();

    public void Dispose() => home.Dispose();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private PlayerPaths PathsOf(string name)
    {
        Environment.SetEnvironmentVariable("NACRE_HOME", home[name]);
        return PlayerPaths.Open();
    }

    /// <summary>An enrolled device's files, as <see cref="EnrolledIdentity.EnrolAsync"/> leaves them.</summary>
    private static async Task<byte[]> EnrolAsync(PlayerPaths paths)
    {
        var made = await TpmKey.CreateAsync(paths.State, Token);
        DurableFile.WriteJson(Path.Combine(paths.State, "device.tpm"), made.Record);
        using var key = DeviceKey.Of(made);
        var secret = RandomNumberGenerator.GetBytes(32);
        DeviceSecrets.Write(Path.Combine(paths.State, "device.secret"), key, secret);
        using var tls = TlsIdentity.Create();
        tls.Write(Path.Combine(paths.State, "device.tls"), key);
        DurableFile.WriteJson(Path.Combine(paths.State, "device.json"), new DeviceRecord(new Uri("http://127.0.0.1:1"), "device-1", "ann", "o", null, made.PublicKey));
        return secret;
    }

    private static string Encrypt(LeaseKeys keys, PublicKey to) => JWE.EncryptBytes(
        JsonSerializer.SerializeToUtf8Bytes(keys, ContractJson.Options),
        [new JweRecipient(JweAlgorithm.ECDH_ES_A256KW, new Jwk(crv: to.Crv, x: to.X, y: to.Y))], JweEncryption.A256GCM, mode: SerializationMode.Compact);

    private static LeaseKeys Keys { get; } = new(Convert.ToBase64String(new byte[32]), new Dictionary<string, string> { ["1"] = Convert.ToBase64String(new byte[32]) });

    [Fact]
    public async Task It_signs_requests_and_opens_leases_and_secrets()
    {
        await using var tpm = await SoftwareTpm.StartAsync(home["tpm"]);
        var paths = PathsOf("device");
        var secret = await EnrolAsync(paths);
        using var identity = EnrolledIdentity.Open(paths);
        Assert.True(identity.Key.IsInHardware);
        var watch = Stopwatch.StartNew();
        var tokens = Enumerable.Range(0, 20).Select(i => identity.Key.SignToken("device-1", "GET", $"/{i}", [], DateTimeOffset.UnixEpoch)).ToList();
        TestContext.Current.TestOutputHelper?.WriteLine($"a signature takes {watch.Elapsed.TotalMilliseconds / tokens.Count:0} ms");
        Assert.All(tokens, token => Assert.True(Jws.TryVerify(token, identity.Key.PublicKey, DeviceToken.Type, out _)));
        watch.Restart();
        Assert.Equal(Keys.Share, identity.Key.DecryptKeys(Encrypt(Keys, identity.Key.PublicKey)).Share);
        TestContext.Current.TestOutputHelper?.WriteLine($"opening a lease takes {watch.Elapsed.TotalMilliseconds:0} ms");
        Assert.Equal(secret, identity.ReadSecret());
        Assert.ThrowsAny<CryptographicException>(identity.Key.ExportPkcs8);

        // Nothing of it lies in the clear.
        foreach (var file in Directory.GetFiles(paths.State))
        {
            Assert.True((await File.ReadAllBytesAsync(file, Token)).AsSpan().IndexOf(secret) < 0, file);
        }

        using var theirs = DeviceKey.Create();
        Assert.Equal(ErrorCatalogue.LeaseNotAuthentic, Assert.Throws<NacreException>(() => identity.Key.DecryptKeys(Encrypt(Keys, theirs.PublicKey))).Kind);
    }

    [Fact]
    public async Task It_is_still_there_after_the_computer_was_off()
    {
        var paths = PathsOf("device");
        byte[] secret;
        await using (await SoftwareTpm.StartAsync(home["tpm"]))
        {
            secret = await EnrolAsync(paths);
        }

        await using (await SoftwareTpm.StartAsync(home["tpm"]))
        {
            using var identity = EnrolledIdentity.Open(paths);
            Assert.Equal(secret, identity.ReadSecret());
        }
    }

    [Theory]
    [InlineData("another computer")]
    [InlineData("another computer with a key of its own in the same place")]
    [InlineData("no TPM")]
    public async Task Everything_copied_to_another_computer_opens_nothing_there(string where)
    {
        var paths = PathsOf("device");
        await using (await SoftwareTpm.StartAsync(home["tpm"]))
        {
            await EnrolAsync(paths);
        }

        var copy = PathsOf("copy");
        foreach (var file in Directory.GetFiles(paths.State))
        {
            File.Copy(file, Path.Combine(copy.State, Path.GetFileName(file)), overwrite: true);
        }

        await using var other = where == "no TPM" ? null : await SoftwareTpm.StartAsync(home["other"]);
        if (where.EndsWith("place", StringComparison.Ordinal))
        {
            var theirs = await TpmKey.CreateAsync(copy.State, Token);
            var record = DurableFile.ReadJson<TpmKeyRecord>(Path.Combine(copy.State, "device.tpm"))!;
            DurableFile.WriteJson(Path.Combine(copy.State, "device.tpm"), record with { Handle = theirs.Record.Handle });
        }

        using var identity = EnrolledIdentity.Open(copy);
        foreach (var act in new Action[] { () => identity.ReadSecret(), () => identity.Key.SignToken("device-1", "GET", "/", [], DateTimeOffset.UnixEpoch), () => identity.Key.DecryptKeys(Encrypt(Keys, identity.Key.PublicKey)) })
        {
            var refused = Assert.Throws<NacreException>(act);
            Assert.Equal(ErrorCatalogue.DeviceKeyElsewhere, refused.Kind);
        }
    }

    /// <summary>What a key in a file can't do: docs/threat-model.md says so.</summary>
    [Fact]
    public void A_copy_with_its_key_in_a_file_opens_elsewhere()
    {
        var paths = PathsOf("device");
        using var key = DeviceKey.Create();
        DurableFile.Write(Path.Combine(paths.State, "device.key"), key.ExportPkcs8());
        DeviceSecrets.Write(Path.Combine(paths.State, "device.secret"), key, new byte[32]);
        DurableFile.WriteJson(Path.Combine(paths.State, "device.json"), new DeviceRecord(new Uri("http://127.0.0.1:1"), "device-1", "ann", "o", null, key.PublicKey));
        var copy = PathsOf("copy");
        foreach (var file in Directory.GetFiles(paths.State))
        {
            File.Copy(file, Path.Combine(copy.State, Path.GetFileName(file)), overwrite: true);
        }

        using var identity = EnrolledIdentity.Open(copy);
        Assert.Equal(new byte[32], identity.ReadSecret());
    }
}
