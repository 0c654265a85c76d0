using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using Nacre.Testing;
using Xunit;

namespace Nacre.Images.Tests;

/// <summary>A Debian package made for a test: its files hold <paramref name="Content"/> and a line end; <paramref name="Script"/> is run when it is configured.</summary>
public sealed record TestPackage(
    string Name, string Version, IReadOnlyList<string> Files, string? Conffile, string Content, string Script, string Fields, string Triggers);

/// <summary>What a session printed and how it ended.</summary>
/// <param name="ExitCode">As testdata/applications/session says.</param>
/// <param name="Output">Its standard output, without the end of its last line.</param>
/// <param name="Error">Its standard error.</param>
public sealed record SessionResult(int ExitCode, string Output, string Error);

/// <summary>Roots of Debian packages with the guest's files, made once and kept beside the build's other artifacts.</summary>
public sealed class UserPackagesFixture : IAsyncLifetime
{
    private readonly TemporaryDirectory folder = new();
    private int built;

    /// <summary>The corporate root that the others are made from.</summary>
    public string First { get; private set; } = "";

    internal string Lists => folder["lists"];

    internal static string Archives => Repository.At("artifacts", "golden", "archives");

    public async ValueTask InitializeAsync()
    {
        foreach (var program in new[] { "mmdebstrap", "dpkg-deb", "unshare", "perl" })
        {
            Require.Tool(program);
        }

        Assert.SkipUnless(Environment.IsPrivilegedProcess, "mounts layers: needs root");
        Directory.CreateDirectory(Path.Combine(Archives, "partial"));
        Directory.CreateDirectory(Path.Combine(Lists, "partial"));
        First = await RootAsync("bookworm", withUpdates: false);
        using var device = NewDevice();
        await device.RunAsync(First, "apt-get -q update >/dev/null");
    }

    public ValueTask DisposeAsync()
    {
        folder.Dispose();
        return ValueTask.CompletedTask;
    }

    /// <summary>A device without a past.</summary>
    internal TestDevice NewDevice() => new(this);

    /// <summary>A root of a Debian release with the guest's files as they are now.</summary>
    internal async Task<string> RootAsync(string suite, bool withUpdates)
    {
        const string Mirror = "http://deb.debian.org/debian";
        string[] sources = withUpdates
            ? [$"deb {Mirror} {suite} main", $"deb {Mirror} {suite}-updates main", $"deb {Mirror}-security {suite}-security main"]
            : [$"deb {Mirror} {suite} main"];
        string[] words =
        [
            "--mode=root", "--variant=apt", "--format=directory", "--include=adduser,mount", "--aptopt=Apt::Install-Recommends \"false\"", "--aptopt=Acquire::Languages \"none\"",
            "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=force-unsafe-io", suite,
        ];
        var key = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(string.Join('\n', words.Concat(sources)))))[..12];
        var kept = Repository.At("artifacts", "golden", $"root-{suite}-{key}");
        if (!Directory.Exists(kept))
        {
            var half = $"{kept}.{Guid.NewGuid():n}";
            await ShellAsync($"mmdebstrap {Quote(words)} {Quote([half])} {Quote(sources)} >&2 && mv {half} {kept}");
        }

        var root = folder[$"{suite}{(withUpdates ? "-updates" : "")}"];
        if (!Directory.Exists(root))
        {
            await ShellAsync($$"""
                cp -a --reflink=auto {{kept}} {{root}}
                cp -R --no-preserve=ownership {{Repository.At("guest", "files")}}/. {{root}}/
                rm -f {{root}}/etc/resolv.conf {{root}}/var/lib/apt/extended_states
                cat /etc/resolv.conf >{{root}}/etc/resolv.conf
                printf 'FIRST_SYSTEM_UID=900\nLAST_SYSTEM_UID=979\nFIRST_SYSTEM_GID=900\nLAST_SYSTEM_GID=979\n' >>{{root}}/etc/adduser.conf
                """);
        }

        return root;
    }

    /// <summary>A corporate root: the first one with these packages installed as the company's.</summary>
    internal async Task<string> ReleaseAsync(string name, params TestPackage[] packages)
    {
        var root = folder[name];
        await ShellAsync($"cp -a --reflink=auto {First} {root}");
        var built = Build(packages);
        await ShellAsync($"mkdir {root}/packages; cp {built}/*.deb {root}/packages/; chroot {root} sh -c 'PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg -i packages/*.deb' >&2; rm -r {root}/packages");
        return root;
    }

    /// <summary>A folder with these packages, as NAME_VERSION_all.deb.</summary>
    internal string Build(params TestPackage[] packages)
    {
        var result = folder[$"packages-{Interlocked.Increment(ref built)}"];
        Directory.CreateDirectory(result);
        foreach (var package in packages)
        {
            using var work = new TemporaryDirectory();
            void Write(string path, string content, bool isProgram = false)
            {
                var file = work["root" + path];
                Directory.CreateDirectory(Path.GetDirectoryName(file)!);
                File.WriteAllText(file, content);
                File.SetUnixFileMode(file, (UnixFileMode)Convert.ToInt32(isProgram ? "755" : "644", 8));
            }

            Write("/DEBIAN/control", $"Package: {package.Name}\nVersion: {package.Version}\nArchitecture: all\nMaintainer: Test <test@example.com>\nDescription: made for a test\n{(package.Fields == "" ? "" : package.Fields + "\n")}");
            if (package.Script != "")
            {
                Write("/DEBIAN/postinst", $"#!/bin/sh\nset -e\ntest \"$1\" = configure || exit 0\n{package.Script}\n", true);
                Write("/DEBIAN/prerm", "#!/bin/sh\nset -e\ntest \"$1\" = remove || exit 0\n"
                    + (package.Script.Contains("/usr/bin/choice", StringComparison.Ordinal) ? $"update-alternatives --remove choice {package.Files.First(file => file.Contains("editor", StringComparison.Ordinal))}\n" : "")
                    + (package.Script.Contains("corporate.company", StringComparison.Ordinal) ? "rm -f /usr/bin/corporate; dpkg-divert --package mine --rename --remove /usr/bin/corporate; dpkg-statoverride --remove /usr/share/mine/data; rm -f /usr/share/mine/generated\n" : ""), true);
                Write("/DEBIAN/postrm", $"#!/bin/sh\nset -e\ntest \"$1\" != purge || rm -rf /var/lib/{package.Name}\n", true);
            }

            if (package.Triggers != "")
            {
                Write("/DEBIAN/triggers", package.Triggers + "\n");
            }

            if (package.Conffile is { } conffile)
            {
                Write($"/etc/{package.Name}.conf", conffile);
                Write("/DEBIAN/conffiles", $"/etc/{package.Name}.conf\n");
            }

            package.Files.ToList().ForEach(file => Write(file, package.Content + "\n", true));
            using var dpkg = Process.Start("dpkg-deb", ["--root-owner-group", "-Znone", "--build", work["root"], Path.Combine(result, $"{package.Name}_{package.Version}_all.deb")]);
            dpkg.WaitForExit();
            Assert.Equal(0, dpkg.ExitCode);
        }

        return result;
    }

    internal static async Task<SessionResult> StartAsync(string program, IEnumerable<string> words, params (string Name, string Value)[] environment)
    {
        var start = new ProcessStartInfo(program, words) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var (name, value) in environment)
        {
            start.Environment[name] = value;
        }

        using var process = Process.Start(start)!;
        var output = process.StandardOutput.ReadToEndAsync();
        var error = process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        return new SessionResult(process.ExitCode, (await output).TrimEnd(), await error);
    }

    internal static async Task ShellAsync(string script)
    {
        var result = await StartAsync("/bin/sh", ["-euc", script]);
        Assert.True(result.ExitCode == 0, $"{script}\nended with {result.ExitCode}\n{result.Output}\n{result.Error}");
    }

    private static string Quote(IEnumerable<string> words) => string.Join(' ', words.Select(word => $"'{word}'"));
}

/// <summary>What a device keeps between starts, and its starts.</summary>
internal sealed class TestDevice(UserPackagesFixture debian) : IDisposable
{
    private readonly TemporaryDirectory folder = new();

    public string this[string name] => folder[name];

    public void Dispose() => folder.Dispose();

    /// <summary>One start under a corporate root; <paramref name="script"/> runs in it. <paramref name="packages"/> are at /run/packages.</summary>
    public Task<SessionResult> TryAsync(string root, string script, string? packages = null, params (string Name, string Value)[] environment) => UserPackagesFixture.StartAsync(
        Repository.At("testdata", "applications", "session"), [folder.Path, root, script],
        [("LISTS", debian.Lists), ("ARCHIVES", UserPackagesFixture.Archives), ("PACKAGES", packages ?? ""), .. environment]);

    /// <summary>One start whose script must succeed.</summary>
    public async Task<SessionResult> RunAsync(string root, string script, string? packages = null, params (string Name, string Value)[] environment)
    {
        var result = await TryAsync(root, script, packages, environment);
        Assert.True(result.ExitCode == 0, $"{script}\nended with {result.ExitCode}\n{result.Output}\n{result.Error}");
        return result;
    }

}
