using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;
using Nacre.Testing;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>Golden images built once for all tests, and kept beside the build's other artifacts while their recipe and builder stay the same.</summary>
internal static class GoldenImages
{
    private static readonly SemaphoreSlim Turn = new(1, 1);

    /// <summary>The built folder of the minimal Debian, first (1) or second (2) release.</summary>
    public static Task<string> MinimalAsync(int release) =>
        SystemAsync(release == 1 ? Repository.Path("recipes", "debian-minimal.yaml") : Repository.Path("testdata", "recipes", $"debian-minimal-{release}.yaml"), $"debian-minimal-{release}");

    /// <summary>The built folder of a system with more packages: Debian 12 as released (1), with its updates (2), and the next Debian (3).</summary>
    public static Task<string> EverydayAsync(int release) => SystemAsync(Repository.Path("testdata", "recipes", $"everyday-{release}.yaml"), $"everyday-{release}");

    /// <summary>The built folder of a minimal Debian whose kernel has drivers for USB and sound.</summary>
    public static Task<string> DevicesAsync() => SystemAsync(Repository.Path("testdata", "recipes", "debian-devices.yaml"), "debian-devices");

    /// <summary>The built folder of an application layer of <c>testdata/recipes</c>.</summary>
    /// <param name="recipe">Its recipe's name.</param>
    /// <param name="system">The built folder of the system below it.</param>
    /// <param name="image">The name of that system.</param>
    public static async Task<string> ApplicationAsync(string recipe, string system, string image = "debian-minimal")
    {
        var text = (await File.ReadAllTextAsync(Repository.Path("testdata", "recipes", $"{recipe}.yaml"))).Replace("on: debian-minimal", $"on: {image}", StringComparison.Ordinal);
        using var work = new TemporaryDirectory();
        await File.WriteAllTextAsync(work["recipe.yaml"], text);
        var key = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text + system)))[..16];
        return await BuildAsync($"{recipe}-{key}", work["recipe.yaml"], "--on", system);
    }

    private static Task<string> SystemAsync(string recipe, string name)
    {
        var inputs = new[] { recipe }.Concat(Directory.GetFiles(Repository.Path("guest"), "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal))
            .Concat(Directory.GetFiles(Repository.Path("src", "Nacre.Images", "Building"), "*.cs").Order(StringComparer.Ordinal));
        var key = Convert.ToHexStringLower(SHA256.HashData([.. inputs.SelectMany(File.ReadAllBytes)]))[..16];
        return BuildAsync($"{name}-{key}", recipe);
    }

    private static async Task<string> BuildAsync(string name, params string[] words)
    {
        Require.Tool("mmdebstrap");
        Require.Tool("mkfs.erofs");
        var folder = Repository.Path("artifacts", "golden", name);
        await Turn.WaitAsync();
        try
        {
            if (!Directory.Exists(folder))
            {
                await new Shell().RunAsync(["image", "build", .. words, "--output", folder]);
            }
        }
        finally
        {
            Turn.Release();
        }

        return folder;
    }
}

/// <summary>This checkout.</summary>
internal static class Repository
{
    private static readonly string Root = Find();

    public static string Path(params string[] parts) => System.IO.Path.Combine([Root, .. parts]);

    private static string Find()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (!File.Exists(System.IO.Path.Combine(folder.FullName, "Nacre.slnx")))
        {
            folder = folder.Parent ?? throw new InvalidOperationException("the tests do not run inside the checkout");
        }

        return folder.FullName;
    }
}

/// <summary>An organisation: a running server, its administrator, and a device of the user alice; all real processes, gone when disposed.</summary>
internal sealed class Organisation : IAsyncDisposable
{
    private readonly TemporaryDirectory folder = new();
    private Process? server;

    private Organisation()
    {
        using (var probe = new TcpListener(IPAddress.Loopback, 0))
        {
            probe.Start();
            Url = $"http://127.0.0.1:{((IPEndPoint)probe.LocalEndpoint).Port}";
        }

        Administrator = new Shell(("NACRE_ADMIN_HOME", folder["admin"]));
        Directory.CreateDirectory(Runtime);

        // Never this computer's own TPM.
        Device = new Shell(("NACRE_HOME", DeviceState), ("XDG_RUNTIME_DIR", Runtime), ("NACRE_ACCEL", "tcg"), ("TPM2TOOLS_TCTI", "none"), ("NACRE_USB_EMULATED", "usb-kbd,usb-storage,usb-ccid"));
    }

    public string Url { get; }

    public Shell Administrator { get; }

    public Shell Device { get; }

    public string ServerData => folder["server"];

    public string DeviceState => folder["device"];

    /// <summary>The folder of the device's sockets.</summary>
    public string Runtime => folder["run"];

    public string this[string name] => folder[name];

    /// <summary>Starts a server, logs the administrator in, and adds alice.</summary>
    public static async Task<Organisation> CreateAsync()
    {
        var organisation = new Organisation();
        await organisation.StartServerAsync();
        await organisation.Administrator.RunAsync("login", organisation.Url, "--token-file", Path.Combine(organisation.ServerData, "admin-token"));
        await organisation.Administrator.RunAsync("user", "add", "alice", "--display-name", "Alice");
        return organisation;
    }

    public async Task StartServerAsync()
    {
        server = new Shell().Start("server", "--listen", Url, "--data", ServerData);
        _ = server.StandardError.ReadToEndAsync();
        _ = server.StandardOutput.ReadToEndAsync();
        using var client = new HttpClient();
        for (var limit = Stopwatch.StartNew(); ;)
        {
            try
            {
                await client.GetStringAsync(new Uri($"{Url}/healthz"));
                return;
            }
            catch (HttpRequestException) when (limit.Elapsed < TimeSpan.FromSeconds(60) && !server.HasExited)
            {
                await Task.Delay(50);
            }
        }
    }

    public async Task StopServerAsync()
    {
        if (server is { } running)
        {
            using var signal = Process.Start("kill", ["-TERM", $"{running.Id}"]);
            await running.WaitForExitAsync();
            running.Dispose();
            server = null;
        }
    }

    /// <summary>Publishes a built image and offers it as the LivePC <c>office</c> to alice.</summary>
    public async Task<CommandResult> OfferAsync(string image, string name = "debian-minimal")
    {
        var published = await Administrator.RunAsync("image", "publish", image, "--channel", "stable");
        await Administrator.RunAsync("livepc", "create", "office", "--image", name);
        await Administrator.RunAsync("livepc", "entitle", "office", "alice");
        return published;
    }

    public async Task EnrolAsync()
    {
        var code = (await Administrator.RunAsync("device", "code", "alice")).Line;
        await Device.RunAsync("device", "enrol", Url, code, "--name", "alice's laptop");
    }

    /// <summary>Runs a shell command in the guest and returns its output.</summary>
    public async Task<string> InGuestAsync(string script)
    {
        var result = await Device.RunAsync("livepc", "exec", "office", "--", "/bin/sh", "-c", script);
        return result.Output;
    }

    /// <summary>Waits until the whole release is on the device.</summary>
    public async Task WaitUntilCompleteAsync()
    {
        for (var limit = Stopwatch.StartNew(); ; await Task.Delay(500))
        {
            var status = await Device.RunAsync("livepc", "status", "office");
            if (Regex.IsMatch(status.Output, "complete: starts without a network"))
            {
                return;
            }

            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(5), status.Output);
        }
    }

    /// <summary>Kills the player of <c>office</c>, as the host's kernel would: its guest runs on.</summary>
    public Task KillPlayerAsync() => KillAsync(process => Words(process).Contains("\0player\0office", StringComparison.Ordinal)
        && File.ReadAllText($"/proc/{process.Id}/environ").Contains($"NACRE_HOME={DeviceState}\0", StringComparison.Ordinal));

    /// <summary>Kills the machine of <c>office</c>.</summary>
    public Task KillMachineAsync() => KillAsync(IsMachine);

    /// <summary>The numbers of the running machines of this device.</summary>
    public int[] Machines() => [.. Find(IsMachine).Select(process => process.Id)];

    public async ValueTask DisposeAsync()
    {
        if (Directory.Exists(DeviceState))
        {
            await Device.TryAsync(null, "livepc", "stop", "office");
            await KillMachineAsync();
        }

        await StopServerAsync();
        folder.Dispose();
    }

    private static string Words(Process process) => File.ReadAllText($"/proc/{process.Id}/cmdline");

    private bool IsMachine(Process process) => Words(process) is var words
        && words.StartsWith("qemu-system-x86_64\0", StringComparison.Ordinal) && words.Contains(Runtime, StringComparison.Ordinal);

    private static List<Process> Find(Func<Process, bool> wanted) => [.. Process.GetProcesses().Where(process =>
    {
        try
        {
            return wanted(process);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    })];

    private static async Task KillAsync(Func<Process, bool> wanted)
    {
        foreach (var process in Find(wanted))
        {
            process.Kill();
            await process.WaitForExitAsync();
        }
    }
}
