using System.Diagnostics;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>Each bad input ends in a clear error that says what to do, an exit code other than 0, and nothing lost.</summary>
public sealed class BadInputTests
{
    [Fact]
    public async Task A_wrong_an_expired_and_a_used_code_are_refused_and_the_right_one_still_works()
    {
        await using var organisation = await Organisation.CreateAsync();
        var device = organisation.Device;
        var code = (await organisation.Administrator.RunAsync("device", "code", "alice")).Line;
        var wrong = code[..^1] + (code[^1] == 'A' ? 'B' : 'A');
        await device.FailAsync(ErrorCatalogue.EnrolmentCodeWrong, "device", "enrol", organisation.Url, wrong);
        await device.FailAsync(ErrorCatalogue.EnrolmentCodeWrong, "device", "enrol", organisation.Url, "not a code");
        var brief = (await organisation.Administrator.RunAsync("device", "code", "alice", "--hours", "0.0003")).Line;
        await Task.Delay(TimeSpan.FromSeconds(2.5), TestContext.Current.CancellationToken);
        await device.FailAsync(ErrorCatalogue.EnrolmentCodeExpired, "device", "enrol", organisation.Url, brief);
        await device.FailAsync(ErrorCatalogue.NotEnrolled, "livepc", "list");
        await device.RunAsync("device", "enrol", organisation.Url, code);
        await device.FailAsync(ErrorCatalogue.AlreadyEnrolled, "device", "enrol", organisation.Url, code);
        var other = new Shell(("NACRE_HOME", organisation["other"]));
        await other.FailAsync(ErrorCatalogue.EnrolmentCodeUsed, "device", "enrol", organisation.Url, code);
    }

    [Fact]
    public async Task A_port_in_use_is_named()
    {
        await using var organisation = await Organisation.CreateAsync();
        var result = await new Shell().FailAsync(ErrorCatalogue.AddressInUse, "server", "--listen", organisation.Url, "--data", organisation["second"]);
        Assert.Contains(organisation.Url, result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_that_is_not_there_is_named()
    {
        using var folder = new TemporaryDirectory();
        var device = new Shell(("NACRE_HOME", folder.Path));
        var result = await device.FailAsync(ErrorCatalogue.ServerUnreachable, "device", "enrol", "http://127.0.0.1:1", EnrolmentCode.Create().Reveal());
        Assert.Contains("127.0.0.1:1", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_flipped_bit_a_truncated_segment_a_strangers_trust_and_a_missing_qemu_stop_the_start_and_mended_it_goes_on()
    {
        await using var organisation = await Organisation.CreateAsync();
        var device = organisation.Device;
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.EnrolAsync();

        // Somebody else's word for whose releases this device takes: that of another organisation, put in the place of what it trusts.
        await using (var strange = await Organisation.CreateAsync())
        {
            await strange.OfferAsync(await GoldenImages.MinimalAsync(1));
            await strange.EnrolAsync();
            var trust = Path.Combine(organisation.DeviceState, "trust");
            var trusted = await File.ReadAllBytesAsync(trust, TestContext.Current.CancellationToken);
            File.Copy(Path.Combine(strange.DeviceState, "trust"), trust, overwrite: true);
            await device.FailAsync(ErrorCatalogue.TrustNotAuthentic, "livepc", "start", "office");
            await File.WriteAllBytesAsync(trust, trusted, TestContext.Current.CancellationToken);
        }

        // QEMU is not installed.
        var bare = new Shell(("NACRE_HOME", organisation.DeviceState), ("XDG_RUNTIME_DIR", organisation.Runtime), ("NACRE_ACCEL", "tcg"), ("PATH", organisation["nowhere"]));
        var missing = await bare.FailAsync(ErrorCatalogue.ProgramMissing, "livepc", "start", "office");
        Assert.Contains("qemu-system-x86", missing.Error, StringComparison.Ordinal);

        // What has been fetched already is verified and stays; the rest of every segment is damaged at the server.
        Directory.Delete(Path.Combine(organisation.DeviceState, "segments"), recursive: true);
        Directory.Delete(Path.Combine(organisation.DeviceState, "indexes"), recursive: true);
        var segments = Directory.GetFiles(Path.Combine(organisation.ServerData, "segments"), "*", SearchOption.AllDirectories);
        Assert.True(segments.Length > 5);
        var whole = segments.ToDictionary(file => file, File.ReadAllBytes);
        foreach (var (file, bytes) in whole)
        {
            var flipped = bytes.ToArray();
            for (var i = 1000; i < flipped.Length; i += 4000)
            {
                flipped[i] ^= 1;
            }

            await File.WriteAllBytesAsync(file, flipped, TestContext.Current.CancellationToken);
        }

        await device.FailAsync(ErrorCatalogue.SegmentNotAuthentic, "livepc", "start", "office");
        foreach (var (file, bytes) in whole)
        {
            await File.WriteAllBytesAsync(file, bytes[..(bytes.Length / 2)], TestContext.Current.CancellationToken);
        }

        await device.FailAsync(ErrorCatalogue.SegmentTruncated, "livepc", "start", "office");
        foreach (var (file, bytes) in whole)
        {
            await File.WriteAllBytesAsync(file, bytes, TestContext.Current.CancellationToken);
        }

        await device.RunAsync("livepc", "start", "office", "--memory", "1024");
        await device.FailAsync(ErrorCatalogue.AlreadyRunning, "livepc", "start", "office");
        Assert.Equal("here", (await organisation.InGuestAsync("echo here")).TrimEnd());
    }

    [Fact]
    public async Task A_release_signed_by_another_key_is_refused_by_the_server()
    {
        await using var organisation = await Organisation.CreateAsync();
        var image = await GoldenImages.MinimalAsync(1);
        await organisation.Administrator.RunAsync("image", "publish", image);
        var strange = new Shell(("NACRE_ADMIN_HOME", organisation["strange"]));
        await strange.RunAsync("login", organisation.Url, "--token-file", Path.Combine(organisation.ServerData, "admin-token"));
        var refused = await strange.TryAsync(null, "image", "publish", image);
        Assert.NotEqual(0, refused.ExitCode);
        Assert.Contains("signing key", refused.Error, StringComparison.Ordinal);
        Assert.DoesNotContain(" 2 ", (await organisation.Administrator.RunAsync("image", "list")).Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_full_disk_stops_the_start_with_a_clear_error_and_with_room_it_goes_on()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "mounting a small disk needs root");
        await using var organisation = await Organisation.CreateAsync();
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        Directory.CreateDirectory(organisation.DeviceState);
        await ShellAsync("mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", organisation.DeviceState);
        try
        {
            await organisation.EnrolAsync();
            await organisation.Device.FailAsync(ErrorCatalogue.NoSpace, "livepc", "start", "office");
            await ShellAsync("mount", "-o", "remount,size=1500m", organisation.DeviceState);
            await organisation.Device.RunAsync("livepc", "start", "office", "--memory", "1024", "--no-fetch");
            await organisation.Device.RunAsync("livepc", "stop", "office");
        }
        finally
        {
            await ShellAsync("umount", "-l", organisation.DeviceState);
        }
    }

    private static async Task ShellAsync(string program, params string[] arguments)
    {
        using var process = Process.Start(program, arguments);
        await process.WaitForExitAsync();
        Assert.Equal(0, process.ExitCode);
    }
}
