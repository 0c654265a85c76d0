using System.Diagnostics;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;

namespace Nacre.Cli.Tests;

/// <summary>Disks of other programs by the real command: in as an appliance, out in each format, with nothing lost on the way.</summary>
public sealed class ImageDiskTests : IDisposable
{
    private const string Description = """
        <Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
          <References><File ovf:id="f1" ovf:href="system.vmdk"/><File ovf:id="f2" ovf:href="data.vmdk"/></References>
          <DiskSection><Info/><Disk ovf:diskId="d1" ovf:fileRef="f1"/><Disk ovf:diskId="d2" ovf:fileRef="f2"/></DiskSection>
        </Envelope>
        """;

    private readonly TemporaryDirectory folder = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task An_appliance_is_imported_with_its_partitions_seen_and_exported_in_every_format_unchanged()
    {
        const int Start = 2048 * 512, Size = 16 << 20;
        await ToolAsync("truncate", "-s", "32M", folder["disk.raw"]);
        await ToolAsync("bash", "-c", $"printf 'label: gpt\\nstart=2048, size=32768\\n' | sfdisk --quiet '{folder["disk.raw"]}'");
        await ToolAsync("truncate", "-s", $"{Size}", folder["part"]);
        await ToolAsync("mke2fs", "-q", "-t", "ext4", "-L", "work", folder["part"]);
        await ToolAsync("dd", $"if={folder["part"]}", $"of={folder["disk.raw"]}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none");
        await ToolAsync("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", folder["disk.raw"], folder["system.vmdk"]);
        await ToolAsync("qemu-img", "create", "-q", "-f", "vmdk", folder["data.vmdk"], "1M");
        await File.WriteAllTextAsync(folder["machine.ovf"], Description, Token);
        await ToolAsync("bash", "-c", $"cd '{folder.Path}' && sha256sum --tag machine.ovf system.vmdk data.vmdk | sed 's/ (/(/; s/) =/)=/' > machine.mf && tar --format=ustar -cf machine.ova machine.ovf machine.mf system.vmdk data.vmdk");

        var (code, _, error) = await NacreProgram.RunAsync(folder, "image", "import", folder["machine.ova"], "--name", "desk", "--output", folder["image"]);
        Assert.Equal((int)ExitCode.Usage, code);
        Assert.Contains("has 2 disks: 'system.vmdk', 'data.vmdk'; say with --disk which one is to be imported\n", error, StringComparison.Ordinal);
        Assert.False(Directory.Exists(folder["image"]));
        var imported = await NacreProgram.JsonAsync(folder, "image", "import", folder["machine.ova"], "--disk", "system.vmdk", "--name", "desk", "--output", folder["image"]);
        Assert.Equal(("ova", "system.vmdk", 32L << 20), (imported.GetProperty("from").GetString(), imported.GetProperty("disk").GetString(), imported.GetProperty("diskSize").GetInt64()));
        var partition = Assert.Single(imported.GetProperty("partitions").EnumerateArray());
        Assert.Equal((Start, Size, "ext4", "work"), (
            partition.GetProperty("offset").GetInt32(), partition.GetProperty("size").GetInt32(), partition.GetProperty("fileSystem").GetString(), partition.GetProperty("label").GetString()));

        foreach (var (format, driver) in new[] { ("qcow2", "qcow2"), ("vhdx", "vhdx"), ("raw", "raw"), ("vhd", "vpc"), ("vmdk", "vmdk"), ("vdi", "vdi") })
        {
            var exported = folder[$"out.{format}"];
            await NacreProgram.JsonAsync(folder, "image", "export", folder["image"], exported, "--format", format);

            // As another program reads it; left alone, it would take the geometry of a VHD.
            var image = driver == "vpc" ? $"driver=vpc,force_size_calc=current_size,file.filename={exported}" : $"driver={driver},file.filename={exported}";
            await ToolAsync("qemu-img", "compare", "--image-opts", $"driver=raw,file.filename={folder["disk.raw"]}", image);
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(exported));
            var again = await NacreProgram.JsonAsync(folder, "image", "import", exported, "--name", "desk", "--output", folder[$"again-{format}"]);
            Assert.Equal(format, again.GetProperty("from").GetString());
            await ToolAsync("cmp", folder["disk.raw"], Path.Combine(folder[$"again-{format}"], "disk.raw"));
        }

        (code, _, error) = await NacreProgram.RunAsync(folder, "image", "export", folder["image"], folder["out.ova"], "--format", "ova");
        Assert.Equal((int)ExitCode.Usage, code);
        Assert.Contains("'ova'", error, StringComparison.Ordinal);
    }

    private static async Task ToolAsync(string tool, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(Require.Tool(tool), arguments) { RedirectStandardError = true, RedirectStandardOutput = true })!;
        var output = process.StandardOutput.ReadToEndAsync(Token);
        var errors = await process.StandardError.ReadToEndAsync(Token);
        await process.WaitForExitAsync(Token);
        Assert.True(process.ExitCode == 0, $"{tool}: {await output}{errors}");
    }
}
