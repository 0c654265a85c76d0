using System.Security.Cryptography;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Erasure;
using Nacre.Player.LivePcs;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>A kill destroys what it must, wherever it is interrupted, and nothing else.</summary>
[Collection("NACRE_HOME")]
public sealed class ErasureTests : IDisposable
{
    private const string Id = "0123456789abcdef";
    private static readonly string[] Steps = ["keys", "guest", "files", "receipt", "identity", "end"];
    private readonly Office office = new();
    private readonly DeviceKey deviceKey = DeviceKey.Create();
    private readonly ECDsa leaseKey = ECDsa.Create(ECCurve.NamedCurves.nistP256);
    private readonly Nacre.Testing.TemporaryDirectory elsewhere = new();

    public ErasureTests()
    {
        DurableFile.Write(State("device.secret"), RandomNumberGenerator.GetBytes(32));
        DurableFile.Write(State("device.key"), deviceKey.ExportPkcs8());
        DurableFile.WriteJson(State("device.json"), new DeviceRecord(new Uri("http://127.0.0.1:1/"), "device-1", "ann", "o", PublicKeys.From(leaseKey), PublicKeys.From(leaseKey)));
        DurableFile.Write(State("clock"), [1]);
        foreach (var name in new[] { "office", "lab" })
        {
            var folder = new LivePcFolder(office.Paths, name);
            folder.Create();
            DurableFile.Write(folder.GrantPath, "a lease with a share"u8);
            DurableFile.Write(Path.Combine(folder.Root, "keys.json"), "keys"u8);
            Directory.CreateDirectory(folder.Volume("data"));
            DurableFile.Write(Path.Combine(folder.Volume("data"), "header"), "slots"u8);
            DurableFile.Write(Path.Combine(folder.Volume("data"), "segment-1"), "ciphertext"u8);
            using (folder.Hold())
            {
            }
        }

        Directory.CreateDirectory(office.Paths.Segments);
        DurableFile.Write(Path.Combine(office.Paths.Segments, "ab"), "cached ciphertext"u8);
        File.WriteAllText(elsewhere["photo"], "the user's own");
        Directory.CreateDirectory(elsewhere["holiday"]);
        File.WriteAllText(elsewhere["holiday/photo"], "the user's own too");
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        deviceKey.Dispose();
        leaseKey.Dispose();
        elsewhere.Dispose();
        office.Dispose();
    }

    public static TheoryData<string, bool> Interruptions => new(Steps.SelectMany(step => new[] { (step, true), (step, false) }));

    [Theory]
    [MemberData(nameof(Interruptions))]
    public async Task A_kill_that_is_interrupted_at_any_step_is_finished_by_the_next_command(string step, bool isWholeDevice)
    {
        var entry = Entry(isWholeDevice ? null : "office");
        var eraser = new Eraser(office.Paths, TimeProvider.System, now => Interrupt(now == step));
        eraser.Begin(entry);
        await Assert.ThrowsAsync<InvalidOperationException>(() => eraser.GoOnAsync(Token));
        Assert.True(Eraser.IsUnderWay(office.Paths));
        await LivePcPlayer.FinishErasureAsync(Token);
        Assert.False(Eraser.IsUnderWay(office.Paths));
        AssertGone(isWholeDevice);
        Assert.Empty(await new Eraser(office.Paths, TimeProvider.System).GoOnAsync(Token));
        var receipt = Verified();
        Assert.True(receipt.Succeeded);
        Assert.StartsWith($"killed by order {Id}: ", receipt.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public void The_keys_go_first_and_at_once()
    {
        var eraser = new Eraser(office.Paths, TimeProvider.System);
        var folder = office.Folder;
        using var running = folder.Hold(); // as a player that runs does
        var lab = new LivePcFolder(office.Paths, "lab");
        ScratchKey[] keys = [folder.ScratchKey, folder.DisposableKey("data"), lab.ScratchKey, lab.DisposableKey("data")];
        Array.ForEach(keys, key => key.Renew());
        foreach (var volume in new[] { folder.DisposableVolume("data"), folder.Volume(KeptSystem.Layer) })
        {
            Directory.CreateDirectory(volume);
            DurableFile.Write(Path.Combine(volume, "header"), "slots"u8);
        }

        Assert.Equal(3 + 2 + 2, eraser.EraseKeys(Entry("office")));
        Assert.Equal([true, true, false, false], keys.Select(key => key.TryRead() is null));
        Array.ForEach(keys, key => key.Forget());
        Assert.False(File.Exists(folder.GrantPath));
        Assert.False(File.Exists(Path.Combine(folder.Volume("data"), "header")));
        Assert.True(File.Exists(Path.Combine(folder.Volume("data"), "segment-1")));
        Assert.True(File.Exists(new LivePcFolder(office.Paths, "lab").GrantPath));
        Assert.Equal(0, eraser.EraseKeys(Entry("office")));
    }

    [Fact]
    public async Task Links_are_not_followed_and_the_hosts_own_files_stay_as_they_are()
    {
        var root = office.Folder.Root;
        File.Delete(office.Folder.GrantPath);
        File.CreateSymbolicLink(office.Folder.GrantPath, elsewhere["photo"]);
        Directory.CreateSymbolicLink(Path.Combine(root, "volumes", "settings"), elsewhere["holiday"]);
        File.CreateSymbolicLink(Path.Combine(root, "volumes", "header"), elsewhere["photo"]);
        using (var link = System.Diagnostics.Process.Start("ln", [elsewhere["photo"], Path.Combine(root, "stacks.json")])) // another name of the same file
        {
            await link.WaitForExitAsync(Token);
            Assert.Equal(0, link.ExitCode);
        }

        File.CreateSymbolicLink(Path.Combine(office.Paths.State, "note"), elsewhere["photo"]);
        Directory.CreateSymbolicLink(Path.Combine(office.Paths.LivePcs, "linked"), elsewhere["holiday"]);
        Directory.CreateSymbolicLink(Path.Combine(office.Paths.State, "pictures"), elsewhere["holiday"]);
        var eraser = new Eraser(office.Paths, TimeProvider.System);
        eraser.Begin(Entry(null));
        await eraser.GoOnAsync(Token);
        AssertGone(isWholeDevice: true);
        Assert.False(Path.Exists(Path.Combine(office.Paths.State, "pictures")));
        Assert.Equal("photo", Path.GetFileName(Assert.Single(Directory.GetFileSystemEntries(elsewhere["holiday"]))));
        Assert.Equal(("the user's own", "the user's own too"), (await File.ReadAllTextAsync(elsewhere["photo"], Token), await File.ReadAllTextAsync(elsewhere["holiday/photo"], Token)));
    }

    [Fact]
    public async Task A_kill_of_keys_leaves_noise_that_is_in_nobodys_way()
    {
        var eraser = new Eraser(office.Paths, TimeProvider.System);
        eraser.Begin(Entry("office") with { Mode = KillMode.CryptoErase });
        await eraser.GoOnAsync(Token);
        Assert.False(Directory.Exists(office.Folder.Root));
        Assert.Equal("segment-1", Path.GetFileName(Assert.Single(ErasedFiles.Below(Path.Combine(office.Paths.State, "erased")), file => Path.GetFileName(file) != "lock")));
    }

    [Fact]
    public async Task Cached_releases_go_with_the_last_LivePC_and_not_before()
    {
        var eraser = new Eraser(office.Paths, TimeProvider.System);
        eraser.Begin(Entry("office"));
        await eraser.GoOnAsync(Token);
        Assert.True(Directory.Exists(office.Paths.Segments));
        eraser.Begin(Entry("lab") with { Scope = WipeScope.WorkData, Id = "0123456789abcde0" });
        await eraser.GoOnAsync(Token);
        Assert.True(Directory.Exists(office.Paths.Segments));
        eraser.Begin(Entry("lab") with { Id = "0123456789abcde1" });
        await eraser.GoOnAsync(Token);
        Assert.False(Directory.Exists(office.Paths.Segments));
    }

    [Fact]
    public async Task What_is_written_down_by_somebody_else_names_nothing_outside()
    {
        var eraser = new Eraser(office.Paths, TimeProvider.System);
        eraser.Begin(Entry("office") with { LivePc = "../../../elsewhere" });
        Assert.Empty(await eraser.GoOnAsync(Token));
        eraser.Begin(Entry("office"));
        await File.WriteAllTextAsync(State("erasing/" + Id + ".json"), "not json", Token);
        Assert.Empty(await eraser.GoOnAsync(Token));
        Assert.True(File.Exists(office.Folder.GrantPath));
    }

    private static void Interrupt(bool now)
    {
        if (now)
        {
            throw new InvalidOperationException("the process is killed here"); // nothing handles it
        }
    }

    private ErasureEntry Entry(string? livePc)
    {
        var order = Jws.SignClaims(new DeviceOrderClaims("device-1", Id, DeviceAct.Kill, livePc, KillMode.Both, WipeScope.All, 0, 0), leaseKey, DeviceOrderClaims.Type);
        return new ErasureEntry(Id, livePc, KillMode.Both, WipeScope.All, order, $"killed by order {Id}");
    }

    private DeviceReceiptClaims Verified()
    {
        var receipt = ReceiptBox.Find(office.Paths, Id)!;
        return receipt.Verify(PublicKeys.From(leaseKey), id => id == "device-1" ? deviceKey.PublicKey : null).Receipt;
    }

    private void AssertGone(bool isWholeDevice)
    {
        Assert.False(Path.Exists(office.Folder.Root));
        var lab = new LivePcFolder(office.Paths, "lab");
        Assert.Equal(!isWholeDevice, File.Exists(lab.GrantPath));
        Assert.Equal(!isWholeDevice, File.Exists(Path.Combine(lab.Volume("data"), "header")));
        foreach (var file in new[] { "device.secret", "device.key", "device.json", "clock", "segments/ab" })
        {
            Assert.Equal(!isWholeDevice, File.Exists(State(file)));
        }

        if (isWholeDevice)
        {
            Assert.Equal(["erasing", "receipts"], Directory.GetFileSystemEntries(office.Paths.State).Select(Path.GetFileName).Order());
            Assert.Equal(ErrorCatalogue.NotEnrolled, Assert.Throws<NacreException>(() => EnrolledIdentity.Open(office.Paths)).Kind);
        }
    }

    private string State(string name) => Path.Combine(office.Paths.State, name);
}
