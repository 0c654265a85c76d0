using System.Diagnostics;
using Nacre.Contracts;
using Nacre.Player.LivePcs;
using Nacre.Player.Machines;
using Nacre.Player.Stacks;
using Nacre.Player.UserPackages;
using Nacre.Policies;
using Nacre.Testing;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>What a killed player leaves is found and gone on with, and nothing else is ever touched.</summary>
[Collection("NACRE_HOME")]
public sealed class LeftOverTests : IDisposable
{
    private readonly Office office = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => office.Dispose();

    [Fact]
    public void Only_the_machine_of_that_LivePC_is_one_of_its_left_overs()
    {
        List<string> own = ["/usr/bin/qemu-system-x86_64", .. Qemu.Arguments(Machine(office.Folder))];
        Assert.True(LeftOver.IsOf(office.Folder, own));
        Assert.False(LeftOver.IsOf(new LivePcFolder(office.Paths, "offic"), own));
        Assert.False(LeftOver.IsOf(new LivePcFolder(office.Paths, "office2"), own));
        Assert.False(LeftOver.IsOf(office.Folder, ["/usr/bin/editor", .. own.Skip(1)]));
        Assert.False(LeftOver.IsOf(office.Folder, ["/usr/bin/qemu-system-x86_64", "-name", "nacre-office"]));
        Assert.False(LeftOver.IsOf(office.Folder, ["/usr/bin/qemu-system-x86_64", .. Qemu.Arguments(Machine(office.Folder) with { NbdSocket = "/elsewhere" + office.Folder.NbdSocket })]));
        Assert.Null(LeftOver.Find(office.Folder));
    }

    [Fact]
    public async Task A_machine_that_runs_is_found_by_its_words_and_ended_and_its_neighbour_is_not()
    {
        // A QEMU's words on a process that does nothing.
        using var own = Start(office.Folder);
        using var neighbour = Start(new LivePcFolder(office.Paths, "other"));
        using (var found = LeftOver.Find(office.Folder)!)
        {
            Assert.Equal(own.Id, found.Single!.Id);
            Assert.Equal(ProcessHandle.StartTimeOf(own.Id), found.Single.StartTime);
            Assert.False(found.Single.Ended.IsCompleted);
            await found.EndAsync().WaitAsync(TimeSpan.FromSeconds(30), Token);
        }

        await own.WaitForExitAsync(Token);
        Assert.Null(LeftOver.Find(office.Folder));
        Assert.Null(ProcessHandle.TryOpen(own.Id));
        Assert.False(neighbour.HasExited);
        neighbour.Kill();
        await neighbour.WaitForExitAsync(Token);
    }

    [Fact]
    public async Task Of_two_machines_neither_is_gone_on_with()
    {
        using var first = Start(office.Folder);
        using var second = Start(office.Folder);
        using var found = LeftOver.Find(office.Folder)!;
        Assert.Null(found.Single);
        await found.EndAsync().WaitAsync(TimeSpan.FromSeconds(30), Token);
    }

    [Fact]
    public void The_record_of_a_machine_tells_another_configuration_and_not_another_release()
    {
        var machine = Machine(office.Folder);
        Assert.Equal(MachineRecord.ShapeOf(machine), MachineRecord.ShapeOf(machine with { Kernel = "/other", Initramfs = "/other", CommandLine = "other" }));
        Assert.NotEqual(MachineRecord.ShapeOf(machine), MachineRecord.ShapeOf(machine with { Disks = [] }));
        Assert.NotEqual(MachineRecord.ShapeOf(machine), MachineRecord.ShapeOf(machine with { Accelerator = "kvm" }));
        var record = new MachineRecord
        {
            ProcessId = 7,
            StartTime = 8,
            Stack = new CorporateStack([new ReleaseName("debian", 9), new ReleaseName("tools", 1)]),
            Release = MachineRecord.DigestOf(["signed", "signed too"]),
            Kind = ImageKind.Disk,
            Accelerator = "tcg",
            Memory = 512,
            Processors = 1,
            Features = new MachineFeatures { HasUsb = true, Audio = "pa" },
            Shape = "x",
            Fresh = ["data"],
            IsUp = true,
        };
        office.Folder.Machine = record;
        Assert.Equal(record with { Fresh = [] }, office.Folder.Machine! with { Fresh = [] }, EqualityComparer<MachineRecord>.Default);
        Assert.Equal(["data"], office.Folder.Machine!.Fresh);
        office.Folder.Machine = null;
        Assert.Null(office.Folder.Machine);
    }

    [Fact]
    public async Task The_scratch_layer_of_a_killed_player_opens_with_the_kept_key_and_not_after_the_key_is_forgotten()
    {
        using var memory = new TemporaryDirectory();
        var key = new ScratchKey(memory.Path, "office");
        var content = new byte[4096];
        content.AsSpan().Fill(7);
        await using (var volumes = new OpenVolumes())
        {
            volumes.Renew("scratch", office["scratch"], 1 << 30, key);
            await volumes.Exports["scratch"].WriteAsync(0, content, true, Token);
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(Assert.Single(Directory.GetFiles(memory.Path))));

            // What the next player finds is what was written until the kill.
            Directory.CreateDirectory(office["killed"]);
            foreach (var file in Directory.GetFiles(office["scratch"]).Where(file => Path.GetFileName(file) != "lock"))
            {
                File.Copy(file, Path.Combine(office["killed"], Path.GetFileName(file)));
            }

            await using var next = new OpenVolumes();
            next.Resume("scratch", office["killed"], new ScratchKey(memory.Path, "office"));
            var read = new byte[4096];
            await next.Exports["scratch"].ReadAsync(0, read, Token);
            Assert.Equal(content, read);
        }

        Assert.Empty(Directory.GetFiles(memory.Path));
        Assert.Null(key.TryRead());
        await using var late = new OpenVolumes();
        Assert.Equal(ErrorCatalogue.NotFound, Assert.Throws<NacreException>(() => late.Resume("scratch", office["scratch"], key)).Kind);
    }

    [Fact]
    public async Task Without_a_folder_in_memory_the_key_is_kept_nowhere()
    {
        var key = new ScratchKey(null, "office");
        await using (var volumes = new OpenVolumes())
        {
            volumes.Renew("scratch", office["scratch"], 1 << 30, key);
            await volumes.Exports["scratch"].FlushAsync(Token);
            Assert.Null(key.TryRead());
        }

        Assert.False(Directory.Exists(office["scratch"]));
    }

    [Fact]
    public void The_key_is_kept_where_only_memory_holds_it()
    {
        if (office.Paths.Memory is { } memory)
        {
            Assert.True(new DriveInfo(memory).DriveFormat is "tmpfs" or "ramfs");
        }
    }

    [Fact]
    public void A_machine_keeps_its_shape_whatever_its_parameters_say_but_not_without_one()
    {
        var machine = Machine(office.Folder);
        var shape = MachineRecord.ShapeOf(machine);
        Assert.Equal(shape, MachineRecord.ShapeOf(machine with { Parameters = [("stack", "/proc/2/fd/9")], Kernel = "/other" }));
        Assert.NotEqual(shape, MachineRecord.ShapeOf(machine with { Parameters = [] }));
        Assert.NotEqual(shape, MachineRecord.ShapeOf(machine with { Disks = [.. machine.Disks, new GuestDisk("nacre-app-00", "app-00", true)] }));
    }

    [Fact]
    public void The_guest_is_told_what_the_policy_says()
    {
        var policy = Policy.Of("test", PolicyDocument.Parse("""{"layer.app":false,"layer.rules":["/srv data","# x"],"update.healthUnits":["ssh.service"],"vm.computerName":"WS-%serial%","vm.timeZone":"Europe/Zurich","layer.quotaUserGB":0,"appVisibility":["gimp press","gimp design","nginx -","jq design"]}"""));
        Assert.Equal(
            ["/srv data\n# x\n", "debian 3\ntools 1\n", "discard\n", "postpone\n", "ssh.service\n", "WS-00c0ffee\n", "Europe/Zurich\n", "applications 10000000000\n", "jq\nnginx\n"],
            GuestParameters.Texts(policy, ["debian 3", "tools 1"], UserPackageChoice.Postpone, ["press", "nginx"], "00c0ffee"));
        using var parameters = new GuestParameters(policy, ["debian 3"], UserPackageChoice.Remove, []);
        Assert.Equal(GuestParameters.Names, parameters.Paths.Select(parameter => parameter.Name));
        Assert.Equal("remove\n", File.ReadAllText(parameters.Paths.Single(parameter => parameter.Name == "conflicts").Path));
    }

    private static MachineOptions Machine(LivePcFolder folder) => new()
    {
        Name = LeftOver.MachineName(folder),
        Accelerator = "tcg",
        Kernel = "/k",
        Initramfs = "/i",
        CommandLine = "quiet",
        NbdSocket = folder.NbdSocket,
        Parameters = [("stack", "/proc/1/fd/5")],
        Disks = [new GuestDisk("nacre-system", "system", true), new GuestDisk("nacre-data", "data", false)],
        Memory = 512,
        Processors = 1,
        Sockets = folder.Sockets,
    };

    /// <summary>A shell that calls itself QEMU and waits for a line that never comes.</summary>
    internal static Process Start(LivePcFolder folder)
    {
        var start = new ProcessStartInfo("/bin/bash", ["-c", "exec -a qemu-system-x86_64 /bin/bash -c 'echo; read -r line' \"$@\"", "x", "x", .. Qemu.Arguments(Machine(folder))])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        };
        var process = Process.Start(start)!;
        _ = process.StandardOutput.ReadLine();
        return process;
    }
}
