using System.Diagnostics;
using System.Security.Cryptography;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Anchors;
using Nacre.Player.Devices;
using Nacre.Player.Keys;
using Nacre.Player.LivePcs;
using Nacre.Testing;
using Nacre.Volumes;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>Layers that were put back to an older state are not opened as if they were the newest: with real volumes, a server that remembers, and a TPM.</summary>
[Collection("NACRE_HOME")]
public sealed class AnchorKeeperTests : IDisposable
{
    private readonly SecretBytes slotKey = SecretBytes.Take([.. Enumerable.Range(0, 32).Select(value => (byte)value)]);
    private readonly TemporaryDirectory home = new();
    private readonly PlayerPaths paths;
    private readonly LivePcFolder folder;
    private readonly ManualTime time = new();
    private readonly List<string> problems = [];

    // The server: what it was told last, and whether it can be reached.
    private readonly List<IReadOnlyList<StatedAnchor>> statements = [];
    private readonly SemaphoreSlim heard = new(0);
    private Func<IReadOnlyList<StatedAnchor>, IReadOnlyList<LayerAnchor>> answer = stated => [.. stated.Select(one => one.Anchor)];
    private bool isOnline = true;

    public AnchorKeeperTests()
    {
        Environment.SetEnvironmentVariable("NACRE_HOME", home.Path);
        paths = PlayerPaths.Open();
        using var lease = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        using var key = DeviceKey.Create();
        DurableFile.Write(Path.Combine(paths.State, "device.secret"), RandomNumberGenerator.GetBytes(32));
        DurableFile.Write(Path.Combine(paths.State, "device.key"), key.ExportPkcs8());
        DurableFile.WriteJson(Path.Combine(paths.State, "device.json"), new DeviceRecord(new Uri("http://127.0.0.1:1"), "device-1", "ann", "o", null, PublicKeys.From(lease)));
        folder = new LivePcFolder(paths, "office");
        folder.Create();
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string Layer => folder.Volume("data");

    public void Dispose()
    {
        Directory.Delete(folder.Sockets, recursive: true);
        heard.Dispose();
        slotKey.Dispose();
        home.Dispose();
    }

    [Fact]
    public void The_file_says_what_was_written_and_nothing_where_there_is_none()
    {
        var file = File();
        Assert.Null(file.Read());
        var anchor = new LayerAnchor("data", Guid.NewGuid(), 1, 5);
        file.Write(new KeptAnchors([new KeptAnchor(anchor, anchor with { Position = 4 }, anchor with { Position = 6 })], 7));
        var read = File().Read()!;
        Assert.Equal(7UL, read.Count);
        Assert.Equal([new KeptAnchor(anchor, anchor with { Position = 4 }, anchor with { Position = 6 })], read.Layers);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, System.IO.File.GetUnixFileMode(folder.Anchors));
    }

    [Fact]
    public void A_file_that_was_changed_or_cut_or_is_of_another_LivePC_or_device_is_refused()
    {
        File().Write(new KeptAnchors([new KeptAnchor(new LayerAnchor("data", Guid.NewGuid(), 1, 5))], null));
        var whole = System.IO.File.ReadAllBytes(folder.Anchors);
        for (var i = 0; i < whole.Length; i++)
        {
            var changed = whole.ToArray();
            changed[i] ^= 1;
            Refused(changed);
        }

        Refused([]);
        Refused(whole[..32]);
        Refused(whole[..^1]);
        Refused([.. whole, 0]);
        var other = new LivePcFolder(paths, "other");
        other.Create();
        System.IO.File.WriteAllBytes(other.Anchors, whole);
        using (var identity = EnrolledIdentity.Open(paths))
        {
            Assert.Throws<NacreException>(() => new AnchorFile(other, identity).Read());
        }

        DurableFile.WriteJson(Path.Combine(paths.State, "device.json"), DurableFile.ReadJson<DeviceRecord>(Path.Combine(paths.State, "device.json"))! with { DeviceId = "device-2" });
        Refused(whole);
        Directory.Delete(other.Sockets, recursive: true);

        void Refused(byte[] content)
        {
            System.IO.File.WriteAllBytes(folder.Anchors, content);
            Assert.Equal(ErrorCatalogue.VolumeOutdated, Assert.Throws<NacreException>(() => File().Read()).Kind);
        }
    }

    [Fact]
    public async Task A_layer_that_is_put_back_is_refused_offline_by_the_kept_file_and_online_by_the_server_alone()
    {
        await RunAsync();
        var old = Copy(Layer);
        await RunAsync();
        var newest = Copy(Layer);
        var known = statements[^1][0].Anchor;

        PutBack(old, Layer);
        isOnline = false;
        var refused = await RefusedAsync();
        Assert.Contains("'data'", refused.Message, StringComparison.Ordinal);
        Assert.Contains($"{known.Position}", refused.Message, StringComparison.Ordinal);

        // Without the file the lease's word counts, kept or new.
        System.IO.File.Delete(folder.Anchors);
        await RefusedAsync(told: [known]);
        isOnline = true;
        await RefusedAsync(told: [known]);

        PutBack(newest, Layer);
        await RunAsync(told: [known]);
        Assert.Empty(problems);
    }

    [Fact]
    public async Task A_layer_that_is_gone_is_not_made_anew_in_silence()
    {
        await RunAsync();
        Directory.Delete(Layer, recursive: true);
        Assert.Contains("is gone", (await RefusedAsync()).Message, StringComparison.Ordinal);
        Assert.False(Directory.Exists(Layer));
        var before = statements[^1][0].Anchor;
        await RunAsync(acceptOlder: true, told: [before]);
        Assert.NotEqual(before.Volume, statements[^1][0].Anchor.Volume);
        Assert.Equal(2, statements[^1][0].Anchor.Epoch);
    }

    [Fact]
    public async Task An_accepted_older_layer_is_told_to_the_server_at_the_next_chance_and_then_all_goes_on()
    {
        await RunAsync();
        var old = Copy(Layer);
        await RunAsync();
        var known = statements[^1][0].Anchor;
        PutBack(old, Layer);
        isOnline = false;
        await RefusedAsync(told: [known]);
        var accepted = await RunAsync(acceptOlder: true, told: [known]);
        Assert.Contains("'data'", Assert.Single(accepted), StringComparison.Ordinal);

        // Offline it goes on, although the kept lease knows the newer state.
        Assert.Empty(await RunAsync(told: [known]));
        isOnline = true;
        Assert.Equal(known, File().Read()!.Layers[0].Replaces);
        Assert.Empty(await RunAsync(told: [File().Read()!.Layers[0].Anchor]));
        Assert.Null(File().Read()!.Layers[0].Replaces);
        Assert.Equal(2, statements[^1][0].Anchor.Epoch);

        // What was accepted is the state that counts now.
        var next = Copy(Layer);
        await RunAsync(told: [statements[^1][0].Anchor]);
        PutBack(next, Layer);
        await RefusedAsync(told: [statements[^1][0].Anchor]);
    }

    [Fact]
    public async Task Nothing_is_accepted_that_is_not_older()
    {
        await RunAsync();
        Assert.Empty(await RunAsync(acceptOlder: true, told: [statements[^1][0].Anchor]));
        Assert.Equal(1, statements[^1][0].Anchor.Epoch);
    }

    [Fact]
    public async Task A_changed_file_is_refused_and_with_the_users_word_every_layer_counts_as_accepted()
    {
        await RunAsync();
        var known = statements[^1][0].Anchor;
        var content = System.IO.File.ReadAllBytes(folder.Anchors);
        content[40] ^= 1;
        System.IO.File.WriteAllBytes(folder.Anchors, content);
        Assert.Contains(folder.Anchors, (await RefusedAsync(told: [known])).Message, StringComparison.Ordinal);
        Assert.Single(await RunAsync(acceptOlder: true, told: [known]));
        Assert.Equal(known, statements.First(stated => stated[0].Anchor.Epoch == 2)[0].Replaces);
    }

    [Fact]
    public async Task While_it_runs_what_was_written_is_kept_at_each_interval_and_stated_at_each_contact_and_a_server_that_is_away_is_asked_again()
    {
        var keeper = Keeper();
        await keeper.LoadAsync(Token);
        keeper.Hear([], isNow: true);
        await using var volumes = new OpenVolumes();
        await keeper.OpenAsync("data", newest => volumes.Open("data", Layer, 1 << 30, slotKey, newest), acceptOlder: false);
        await using (await keeper.BeginAsync())
        {
            await heard.WaitAsync(Token);
            await WriteAsync(volumes.Exports["data"]);
            time.Advance(AnchorKeeper.Interval - TimeSpan.FromSeconds(1));
            Assert.Equal(statements[0][0].Anchor, File().Read()!.Layers[0].Anchor);
            time.Advance(TimeSpan.FromSeconds(1));
            while (File().Read()!.Layers[0].Anchor.Position == statements[0][0].Anchor.Position)
            {
                await Task.Delay(10, Token);
            }

            Assert.Single(statements);
            Assert.True((await keeper.CheckInAsync(Token))!.IsLeaseCurrent);
            Assert.True(statements[1][0].Anchor.Position > statements[0][0].Anchor.Position);

            isOnline = false;
            await WriteAsync(volumes.Exports["data"]);
            Assert.Null(await keeper.CheckInAsync(Token));
            Assert.Equal(2, statements.Count);
            Assert.True(File().Read()!.Layers[0].Anchor.Position > statements[1][0].Anchor.Position);
            isOnline = true;
            Assert.NotNull(await keeper.CheckInAsync(Token));
            Assert.Equal(File().Read()!.Layers[0].Anchor, statements[2][0].Anchor);
        }

        // Nothing was written since, so there is nothing to say at the end.
        Assert.Equal(3, statements.Count);
    }

    [Fact]
    public async Task An_older_copy_that_was_started_offline_is_told_of_once_there_is_a_server_and_refused_from_then_on()
    {
        await RunAsync();
        var (old, oldFile) = (Copy(Layer), System.IO.File.ReadAllBytes(folder.Anchors));
        await RunAsync();
        var known = statements[^1][0].Anchor;
        PutBack(old, Layer);
        System.IO.File.WriteAllBytes(folder.Anchors, oldFile);
        isOnline = false;
        await RunAsync();
        isOnline = true;
        answer = _ => [known with { Position = 100 * known.Position }];
        await RunAsync();
        Assert.Contains("older copy", Assert.Single(problems), StringComparison.Ordinal);
        var count = statements.Count;
        await RefusedAsync();
        isOnline = false;
        await RefusedAsync();
        Assert.Equal(count, statements.Count);
    }

    [Fact]
    public async Task With_a_TPM_an_older_copy_of_the_layer_and_of_the_file_is_refused_without_a_network()
    {
        await using var tpm = await SoftwareTpm.StartAsync(home["tpm"]);
        await RunAsync();
        Assert.NotNull(File().Read()!.Count);
        var (old, oldFile) = (Copy(Layer), System.IO.File.ReadAllBytes(folder.Anchors));
        await RunAsync();
        isOnline = false;
        await RunAsync();
        var (newest, newestFile) = (Copy(Layer), System.IO.File.ReadAllBytes(folder.Anchors));

        PutBack(old, Layer);
        System.IO.File.WriteAllBytes(folder.Anchors, oldFile);
        Assert.Contains("the TPM", (await RefusedAsync()).Message, StringComparison.Ordinal);
        System.IO.File.Delete(folder.Anchors);
        Assert.Contains("says count none", (await RefusedAsync()).Message, StringComparison.Ordinal);

        PutBack(newest, Layer);
        System.IO.File.WriteAllBytes(folder.Anchors, newestFile);
        await RunAsync();

        // Taken on purpose, and then all goes on.
        PutBack(old, Layer);
        System.IO.File.WriteAllBytes(folder.Anchors, oldFile);
        Assert.Single(await RunAsync(acceptOlder: true));
        Assert.Empty(await RunAsync());
        Assert.Empty(problems);
    }

    [Fact]
    public async Task A_file_that_is_one_count_ahead_of_the_TPM_is_the_newest()
    {
        await using var tpm = await SoftwareTpm.StartAsync(home["tpm"]);
        await RunAsync();
        var kept = File().Read()!;
        File().Write(kept with { Count = kept.Count + 1 }); // the computer went down before the TPM counted
        await RunAsync();
        await RunAsync();
    }

    [Fact]
    public async Task A_TPM_that_was_there_and_does_not_answer_is_said_and_needs_the_servers_word()
    {
        await using (await SoftwareTpm.StartAsync(home["tpm"]))
        {
            await RunAsync();
        }

        isOnline = false;
        Assert.Contains("does not answer", (await RefusedAsync()).Message, StringComparison.Ordinal);
        isOnline = true;
        await RunAsync(told: [statements[^1][0].Anchor]);
        Assert.Contains("does not answer", Assert.Single(problems), StringComparison.Ordinal);
        await using (await SoftwareTpm.StartAsync(home["tpm"]))
        {
            isOnline = false;
            await RunAsync();
        }
    }

    [Fact]
    public async Task A_TPMs_counter_that_is_made_again_begins_above_all_earlier_counts()
    {
        await using var tpm = await SoftwareTpm.StartAsync(home["tpm"]);
        var counter = (await TpmCounter.FindAsync("device-1", "office", Token))!;
        Assert.Null(await counter.ReadAsync(Token));
        var first = await counter.IncrementAsync(Token);
        Assert.Equal(first + 1, await counter.IncrementAsync(Token));
        Assert.Null(await (await TpmCounter.FindAsync("device-1", "other", Token))!.ReadAsync(Token));
        using (var undefine = Process.Start("tpm2_nvundefine", ["-C", "o", await SoftwareTpm.IndexAsync()]))
        {
            await undefine.WaitForExitAsync(Token);
            Assert.Equal(0, undefine.ExitCode);
        }

        Assert.Null(await counter.ReadAsync(Token));
        Assert.True(await counter.IncrementAsync(Token) > first + 1);
    }

    /// <summary>A start, some writing, and a clean end.</summary>
    /// <returns>What was accepted.</returns>
    private async Task<IReadOnlyList<string>> RunAsync(bool acceptOlder = false, IReadOnlyList<LayerAnchor>? told = null)
    {
        // Never this computer's own TPM.
        var keeper = Keeper(SoftwareTpm.IsRunning ? await TpmCounter.FindAsync("device-1", "office", Token) : null);
        await keeper.LoadAsync(Token);
        keeper.Hear(told ?? [], isOnline);
        await using var volumes = new OpenVolumes();
        await keeper.OpenAsync("data", newest => volumes.Open("data", Layer, 1 << 30, slotKey, newest), acceptOlder);
        await using (await keeper.BeginAsync())
        {
            await WriteAsync(volumes.Exports["data"]);
        }

        return keeper.Accepted;
    }

    private async Task<NacreException> RefusedAsync(IReadOnlyList<LayerAnchor>? told = null)
    {
        var exception = await Assert.ThrowsAsync<NacreException>(() => RunAsync(told: told));
        Assert.Equal(ErrorCatalogue.VolumeOutdated, exception.Kind);
        return exception;
    }

    private AnchorKeeper Keeper(TpmCounter? tpm = null) => new(File(), tpm, Answer, problems.Add, time);

    private Task<AnchorClaims> Answer(IReadOnlyList<StatedAnchor> stated, CancellationToken cancellationToken)
    {
        try
        {
            if (!isOnline)
            {
                throw new NacreException(ErrorCatalogue.ServerUnreachable, "no server");
            }

            statements.Add(stated);
            return Task.FromResult(new AnchorClaims("device-1", "office", "n", answer(stated), IsLeaseCurrent: true));
        }
        finally
        {
            heard.Release();
        }
    }

    private AnchorFile File()
    {
        using var identity = EnrolledIdentity.Open(paths);
        return new AnchorFile(folder, identity);
    }

    private static async Task WriteAsync(IBlockDevice volume)
    {
        await volume.WriteAsync(0, RandomNumberGenerator.GetBytes(8192), forceUnitAccess: true, Token);
    }

    private string Copy(string source)
    {
        var target = home[$"copy-{Guid.NewGuid():N}"];
        Directory.CreateDirectory(target);
        foreach (var file in Directory.GetFiles(source))
        {
            System.IO.File.Copy(file, Path.Combine(target, Path.GetFileName(file)));
        }

        return target;
    }

    private void PutBack(string copy, string target)
    {
        Directory.Delete(target, recursive: true);
        Directory.Move(Copy(copy), target);
    }
}
