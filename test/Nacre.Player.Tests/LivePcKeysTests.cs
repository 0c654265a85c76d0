using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Nacre.Player.Devices;
using Nacre.Player.Keys;
using Nacre.Policies;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>What opens a LivePC: the password with the device's secret and the lease's share, a recovery code once, and nothing else.</summary>
[Collection("NACRE_HOME")]
public sealed class LivePcKeysTests : IDisposable
{
    private const string Good = "correct horse battery", Better = "staple of horses, correct";
    private static readonly (int, int) Cheap = (8 * 1024, 1);

    private readonly Office office = new();
    private readonly ManualTime time = new();
    private readonly EnrolledIdentity identity;
    private readonly byte[] part = RandomNumberGenerator.GetBytes(32);
    private readonly ECDsa recovery = ECDsa.Create(ECCurve.NamedCurves.nistP256);
    private string boot = "one";

    public LivePcKeysTests()
    {
        using var lease = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        using var key = DeviceKey.Create();
        DurableFile.Write(Path.Combine(office.Paths.State, "device.secret"), RandomNumberGenerator.GetBytes(32));
        DurableFile.Write(Path.Combine(office.Paths.State, "device.key"), key.ExportPkcs8());
        DurableFile.WriteJson(Path.Combine(office.Paths.State, "device.json"), new DeviceRecord(new Uri("http://127.0.0.1:1"), "device-1", "ann", "o", null, PublicKeys.From(lease)));
        identity = EnrolledIdentity.Open(office.Paths);
    }

    private LivePcKeys Keys => new(office.Folder, identity, time, Cheap, boot);

    public void Dispose()
    {
        identity.Dispose();
        recovery.Dispose();
        office.Dispose();
    }

    [Fact]
    public void A_password_is_wanted_at_the_first_start_and_opens_the_same_key_from_then_on()
    {
        Assert.Equal(ErrorCatalogue.PasswordUnset, Fails(null));
        Assert.False(LivePcKeys.HasPassword(office.Folder));
        var key = Opens(null, fresh: Good);
        Assert.True(LivePcKeys.HasPassword(office.Folder));
        Assert.Equal(key, Opens(Good));
        Assert.Equal(ErrorCatalogue.PasswordNeeded, Fails(null));
        Assert.Equal(ErrorCatalogue.PasswordWrong, Fails(Better));
        Assert.DoesNotContain(Convert.ToBase64String(key), File.ReadAllText(office.Folder.Keys), StringComparison.Ordinal);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(office.Folder.Keys));
    }

    [Fact]
    public void The_password_alone_opens_nothing_on_another_device_or_without_the_lease()
    {
        Opens(null, fresh: Good);
        part[0] ^= 1;
        Assert.Equal(ErrorCatalogue.PasswordWrong, Fails(Good));
    }

    [Theory]
    [InlineData("brief", null)]
    [InlineData("alllowercaseletters", """{"password.classes":3}""")]
    [InlineData("with a tab\tinside it", null)]
    [InlineData("éèàùçâêîôû", null)] // ten characters, twenty bytes
    public void A_password_that_policy_does_not_want_is_refused_with_what_it_wants(string weak, string? document)
    {
        var exception = Assert.Throws<NacreException>(() => Open(null, weak, null, PolicyOf(document)));
        Assert.Equal(ErrorCatalogue.PasswordWeak, exception.Kind);
        Assert.Contains("at least 12 characters", exception.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(weak, exception.Message, StringComparison.Ordinal);
        Assert.False(File.Exists(office.Folder.Keys));
    }

    [Fact]
    public void Changing_the_password_leaves_the_key_and_former_ones_are_not_taken_again()
    {
        var key = Opens(null, fresh: Good);
        Assert.Equal(key, Opens(Good, fresh: Better));
        Assert.Equal(ErrorCatalogue.PasswordWrong, Fails(Good));
        Assert.Equal(ErrorCatalogue.PasswordWeak, Fails(Better, fresh: Better));
        Assert.Equal(ErrorCatalogue.PasswordWeak, Fails(Better, fresh: Good));
        Assert.Equal(key, Opens(Better, fresh: Good, policy: PolicyOf("""{"password.history":0}""")));
        Assert.Equal(key, Opens(Good));
    }

    [Fact]
    public void A_password_grows_old()
    {
        var policy = PolicyOf("""{"password.maxAgeDays":30}""");
        Opens(null, fresh: Good, policy: policy);
        time.Advance(TimeSpan.FromDays(29));
        Opens(Good, policy: policy);
        time.Advance(TimeSpan.FromDays(2));
        Assert.Equal(ErrorCatalogue.PasswordUnset, Fails(Good, policy: policy));
        Opens(Good, fresh: Better, policy: policy);
        Opens(Better, policy: policy);
    }

    [Fact]
    public void Where_policy_wants_no_password_the_device_opens_and_a_password_that_was_set_stays_until_its_user_removes_it()
    {
        var off = PolicyOf("""{"password.required":false}""");
        var key = Opens(null, policy: off);
        Assert.Equal(key, Opens(null, policy: off));

        // Tightened: it has to be chosen before anything opens, and the slot without a password is gone.
        Assert.Equal(ErrorCatalogue.PasswordUnset, Fails(null));
        Assert.Equal(key, Opens(null, fresh: Good));
        Assert.Equal(ErrorCatalogue.PasswordNeeded, Fails(null, policy: off));
        Assert.Equal(ErrorCatalogue.Forbidden, Fails(Good, removes: true));
        Assert.Equal(key, Opens(Good, policy: off, removes: true));
        Assert.Equal(key, Opens(null, policy: off));
    }

    [Fact]
    public void Guessing_is_slowed_down_across_restarts_whatever_the_wall_clock_says_and_stops_after_the_last_try()
    {
        var key = Opens(null, fresh: Good);
        Recoverable(key);
        for (var i = 0; i < 3; i++)
        {
            Assert.Equal(ErrorCatalogue.PasswordWrong, Fails("a guess of no use"));
        }

        // Another process, another boot: the pause is begun anew, never skipped.
        Assert.Equal(ErrorCatalogue.PasswordWait, Fails(Good));
        boot = "two";
        Assert.Equal(ErrorCatalogue.PasswordWait, Fails(Good));
        time.Advance(TimeSpan.FromSeconds(6));
        Assert.Equal(ErrorCatalogue.PasswordWrong, Fails("a guess of no use"));
        Assert.Equal(ErrorCatalogue.PasswordWait, Fails(Good));
        for (var i = 4; i < 10; i++)
        {
            time.Advance(TimeSpan.FromMinutes(16));
            Assert.Equal(ErrorCatalogue.PasswordWrong, Fails("a guess of no use"));
        }

        time.Advance(TimeSpan.FromDays(1));
        Assert.Equal(ErrorCatalogue.PasswordLocked, Fails(Good));
        boot = "three";
        Assert.Equal(ErrorCatalogue.PasswordLocked, Fails(Good));
    }

    [Fact]
    public void A_right_password_in_time_forgets_the_wrong_ones_and_a_killed_try_counts()
    {
        Opens(null, fresh: Good);
        Fails("a guess of no use");
        Fails("a guess of no use");
        Opens(Good);
        Fails("a guess of no use");
        Fails("a guess of no use");
        Opens(Good);

        // Three tries that were begun and killed before their answer.
        var attempts = new Attempts(office.Folder, identity, time, boot);
        for (var i = 0; i < 3; i++)
        {
            attempts.Begin(Policy.Factory, canRecover: false, isRecovery: false);
        }

        Assert.Equal(ErrorCatalogue.PasswordWait, Fails(Good));
    }

    [Fact]
    public void Who_changes_the_count_of_wrong_tries_has_one_left()
    {
        Recoverable(Opens(null, fresh: Good));
        Fails("a guess of no use");
        var content = File.ReadAllBytes(office.Folder.Attempts);
        content[^3] ^= 1;
        File.WriteAllBytes(office.Folder.Attempts, content);
        time.Advance(TimeSpan.FromMinutes(16));
        Fails("a guess of no use"); // begins the pause
        time.Advance(TimeSpan.FromMinutes(16));
        Assert.Equal(ErrorCatalogue.PasswordWrong, Fails("a guess of no use"));
        time.Advance(TimeSpan.FromMinutes(16));
        Assert.Equal(ErrorCatalogue.PasswordLocked, Fails(Good));
    }

    [Fact]
    public void Without_a_recovery_code_nothing_is_locked_for_good()
    {
        Opens(null, fresh: Good);
        for (var i = 0; i < 14; i++)
        {
            time.Advance(TimeSpan.FromMinutes(16));
            Assert.Equal(ErrorCatalogue.PasswordWrong, Fails("a guess of no use"));
        }

        time.Advance(TimeSpan.FromMinutes(16));
        Opens(Good);
    }

    [Fact]
    public void Where_policy_says_wipe_the_last_wrong_try_destroys_the_keys()
    {
        var policy = PolicyOf("""{"auth.maxAttempts":3,"auth.maxAttemptsAction":"wipe"}""");
        var key = Opens(null, fresh: Good, policy: policy);
        Directory.CreateDirectory(office.Folder.Volume("data"));
        Fails("a guess of no use", policy: policy);
        Fails("a guess of no use", policy: policy);
        Assert.Equal(ErrorCatalogue.KeysDestroyed, Fails("a guess of no use", policy: policy));
        Assert.False(File.Exists(office.Folder.Keys));
        time.Advance(TimeSpan.FromDays(1));
        Assert.Equal(ErrorCatalogue.KeysDestroyed, Fails(Good, policy: policy));
        Assert.Equal(ErrorCatalogue.KeysDestroyed, Fails(Good, fresh: Better, policy: policy));
        _ = key;
    }

    [Fact]
    public void A_recovery_code_opens_once_to_choose_a_new_password_and_the_organisation_gets_the_next_one()
    {
        var key = Opens(null, fresh: Good);
        var first = Recoverable(key);
        Assert.Equal(1, first.Number);
        Assert.Equal(Convert.ToBase64String(key), first.Key);
        Keys.Delivered(1);
        Assert.Null(Keys.Undelivered);

        // Also out of a lock.
        for (var i = 0; i < 10; i++)
        {
            time.Advance(TimeSpan.FromMinutes(16));
            Fails("a guess of no use");
        }

        time.Advance(TimeSpan.FromMinutes(16));
        Assert.Equal(ErrorCatalogue.PasswordLocked, Fails(Good));
        Assert.Equal(ErrorCatalogue.PasswordUnset, Fails(null, code: first.Code));
        Assert.Equal(ErrorCatalogue.PasswordWrong, Fails(null, fresh: Better, code: TypedCode.Create(EscrowedKeys.CodeLength)));
        time.Advance(TimeSpan.FromMinutes(16));
        Assert.Equal(key, Opens(null, fresh: Better, code: TypedCode.Show(first.Code).ToLowerInvariant()));
        Assert.Equal(key, Opens(Better));
        Assert.Equal(ErrorCatalogue.NoRecovery, Fails(null, fresh: Good, code: first.Code));

        var second = Recoverable(key);
        Assert.Equal(2, second.Number);
        Assert.NotEqual(first.Code, second.Code);
        Assert.Equal(ErrorCatalogue.PasswordWrong, Fails(null, fresh: Good, code: first.Code));
    }

    [Fact]
    public void A_recovery_code_is_of_no_use_on_another_device()
    {
        var code = Recoverable(Opens(null, fresh: Good)).Code;
        part[31] ^= 1;
        Assert.Equal(ErrorCatalogue.PasswordWrong, Fails(null, fresh: Better, code: code));
    }

    [Fact]
    public void Nothing_changes_while_the_organisation_has_a_code_and_another_recovery_key_gets_another_one()
    {
        var key = Opens(null, fresh: Good);
        Recoverable(key);
        var before = File.ReadAllBytes(office.Folder.Keys);
        using var secret = SecretBytes.Take([.. key]);
        Keys.PrepareRecovery(secret, part, TrustKey.From(recovery));
        Keys.PrepareRecovery(secret, part, null);
        Assert.Equal(before, File.ReadAllBytes(office.Folder.Keys));

        using var other = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        Keys.PrepareRecovery(secret, part, TrustKey.From(other));
        Assert.Equal(2, Keys.Undelivered!.Number);
        Assert.Null(Jwe.TryDecrypt(Keys.Undelivered.Undelivered!, recovery));
        Assert.NotNull(Jwe.TryDecrypt(Keys.Undelivered.Undelivered!, other));
    }

    /// <summary>Whoever can write the file gets nothing open by it.</summary>
    [Fact]
    public void Every_field_of_a_slot_is_bound()
    {
        Recoverable(Opens(null, fresh: Good));
        var content = File.ReadAllText(office.Folder.Keys);
        var fields = 0;
        foreach (var field in new[] { "salt", "nonce", "wrapped", "memoryKiB", "passes", "number", "kind" })
        {
            var changed = JsonNode.Parse(content)!;
            var slot = changed["slots"]!.AsArray().First(one => one!["kind"]!.GetValue<string>() == "password")!;
            slot[field] = field switch
            {
                "memoryKiB" => 16 * 1024,
                "passes" => 2,
                "number" => 7,
                "kind" => "device",
                _ => Convert.ToBase64String(Flip(Convert.FromBase64String(slot[field]!.GetValue<string>()))),
            };
            File.WriteAllText(office.Folder.Keys, changed.ToJsonString());
            var kind = Fails(Good);
            Assert.True(kind == ErrorCatalogue.PasswordWrong || kind == ErrorCatalogue.VolumeDamaged, field);
            File.Delete(office.Folder.Attempts);
            fields++;
        }

        Assert.Equal(7, fields);
        var id = JsonNode.Parse(content)!;
        id["id"] = Guid.NewGuid();
        File.WriteAllText(office.Folder.Keys, id.ToJsonString());
        Assert.Equal(ErrorCatalogue.PasswordWrong, Fails(Good));
        File.WriteAllText(office.Folder.Keys, content);
        File.Delete(office.Folder.Attempts);
        Opens(Good);
    }

    [Theory]
    [InlineData("memoryKiB", 1 << 30)]
    [InlineData("memoryKiB", 8)]
    [InlineData("memoryKiB", -1)]
    [InlineData("passes", 0)]
    [InlineData("passes", int.MaxValue)]
    public void A_file_that_asks_for_all_of_the_computers_memory_is_damaged(string field, int value)
    {
        Opens(null, fresh: Good);
        var changed = JsonNode.Parse(File.ReadAllText(office.Folder.Keys))!;
        changed["slots"]![0]![field] = value;
        File.WriteAllText(office.Folder.Keys, changed.ToJsonString());
        Assert.Equal(ErrorCatalogue.VolumeDamaged, Fails(Good));
    }

    [Theory]
    [InlineData("")]
    [InlineData("{}")]
    [InlineData("{\"format\":1,\"id\":\"x\"}")]
    [InlineData("{\"format\":1,\"id\":\"00000000-0000-0000-0000-000000000000\",\"slots\":[null],\"former\":[]}")]
    [InlineData("{\"format\":1,\"id\":\"00000000-0000-0000-0000-000000000000\",\"slots\":[],\"former\":[]}")]
    public void A_file_that_is_none_is_damaged_and_nothing_is_made_in_its_place(string content)
    {
        File.WriteAllText(office.Folder.Keys, content);
        Assert.Equal(ErrorCatalogue.VolumeDamaged, Fails(Good, fresh: Better));
        Assert.Equal(content, File.ReadAllText(office.Folder.Keys));
    }

    [Fact]
    public void Destroyed_keys_are_overwritten_before_they_are_removed()
    {
        Opens(null, fresh: Good);
        var length = new FileInfo(office.Folder.Keys).Length;
        using var other = new FileStream(office.Folder.Keys, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        LivePcKeys.Destroy(office.Folder);
        Assert.False(File.Exists(office.Folder.Keys));
        Assert.Equal(length, other.Length);
        using var reader = new StreamReader(other, Encoding.Latin1);
        Assert.DoesNotContain("slots", reader.ReadToEnd(), StringComparison.Ordinal);
        LivePcKeys.Destroy(office.Folder); // again: nothing is there
    }

    /// <summary>A link in the place of the file: what it points at is the host's.</summary>
    [Fact]
    public void Destroying_does_not_follow_a_link()
    {
        var target = office["somebodys.txt"];
        File.WriteAllText(target, "of the host");
        File.CreateSymbolicLink(office.Folder.Keys, target);
        LivePcKeys.Destroy(office.Folder);
        Assert.Equal("of the host", File.ReadAllText(target));
    }

    [Fact]
    public async Task Secrets_are_handed_over_and_nothing_else()
    {
        using var secrets = new KeySecrets { Password = Bytes(Good), New = null };
        var stream = new MemoryStream();
        await secrets.WriteAsync(stream, TestContext.Current.CancellationToken);
        stream.Position = 0;
        using var read = KeySecrets.Read(stream);
        Assert.Equal(Good, Encoding.UTF8.GetString(read.Password!.Span));
        Assert.Null(read.New);
        Assert.Equal("***", $"{read}");
        Assert.Equal("***", $"{read.Password}");
        using var nothing = KeySecrets.Read(new MemoryStream());
        Assert.Null(nothing.Password);
    }

    [Fact]
    public void A_secret_is_locked_in_memory_and_zero_after_use()
    {
        var secret = Bytes(Good);
        Assert.True(secret.IsLocked);
        secret.Dispose();
        Assert.Throws<ObjectDisposedException>(() => secret.Span.Length);
    }

    private static byte[] Flip(byte[] bytes)
    {
        bytes[0] ^= 1;
        return bytes;
    }

    private static SecretBytes Bytes(string text) => SecretBytes.Take(Encoding.UTF8.GetBytes(text));

    private static Policy PolicyOf(string? document) =>
        document is null ? Policy.Factory : Policy.Of("organisation", PolicyDocument.Parse(JsonDocument.Parse(document).RootElement));

    private byte[] Opens(string? password, string? fresh = null, string? code = null, Policy? policy = null, bool removes = false) => Open(password, fresh, code, policy ?? Policy.Factory, removes);

    private ErrorKind Fails(string? password, string? fresh = null, string? code = null, Policy? policy = null, bool removes = false) =>
        Assert.Throws<NacreException>(() => Open(password, fresh, code, policy ?? Policy.Factory, removes)).Kind;

    private byte[] Open(string? password, string? fresh, string? code, Policy policy, bool removes = false)
    {
        using var secrets = new KeySecrets { Password = password is null ? null : Bytes(password), New = fresh is null ? null : Bytes(fresh), UntrustedCode = code, RemovesPassword = removes };
        using var key = Keys.Open(part, policy, secrets);
        return key.Span.ToArray();
    }

    /// <summary>What the organisation gets.</summary>
    private EscrowedKeys Recoverable(byte[] key)
    {
        using var secret = SecretBytes.Take([.. key]);
        Keys.PrepareRecovery(secret, part, TrustKey.From(recovery));
        return JsonSerializer.Deserialize<EscrowedKeys>(Jwe.TryDecrypt(Keys.Undelivered!.Undelivered!, recovery)!, ContractJson.Options)!;
    }
}
