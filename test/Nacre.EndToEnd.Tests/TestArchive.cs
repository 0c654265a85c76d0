using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using Nacre.Testing;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>A Debian archive that nobody signed, of packages made for a test, served from this computer.</summary>
internal sealed class TestArchive : IAsyncDisposable
{
    private readonly TemporaryDirectory folder = new();
    private readonly HttpListener listener = new();
    private readonly StringBuilder packages = new();
    private readonly Task serving;

    public TestArchive()
    {
        Require.Tool("dpkg-deb");
        using (var probe = new TcpListener(IPAddress.Loopback, 0))
        {
            probe.Start();
            Source = string.Create(CultureInfo.InvariantCulture, $"deb http://127.0.0.1:{((IPEndPoint)probe.LocalEndpoint).Port}/debian test main");
        }

        listener.Prefixes.Add(Source.Split(' ')[1] + "/");
        listener.Start();
        serving = Task.Run(ServeAsync);
    }

    /// <summary>Its line in a recipe.</summary>
    public string Source { get; }

    /// <summary>Offers a package (a newer version of it beside an older one): one file, <c>/usr/share/NAME</c>, that holds its version.</summary>
    public void Offer(string name, string version, string fields = "")
    {
        var root = folder[$"{name}-{version}"];
        Directory.CreateDirectory(Path.Combine(root, "DEBIAN"));
        Directory.CreateDirectory(Path.Combine(root, "usr/share"));
        var control = $"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Test <test@example.com>\nInstalled-Size: 3\n{fields}Description: made for a test\n";
        File.WriteAllText(Path.Combine(root, "DEBIAN/control"), control);
        File.WriteAllText(Path.Combine(root, "usr/share", name), version + "\n");

        // An image's date is that of its newest package.
        File.SetLastWriteTimeUtc(Path.Combine(root, "usr/share", name), DateTime.UnixEpoch.AddYears(30));
        var deb = $"{name}_{version}_all.deb";
        using var dpkg = Process.Start("dpkg-deb", ["--root-owner-group", "-Znone", "--build", root, folder[deb]]);
        dpkg.WaitForExit();
        Assert.Equal(0, dpkg.ExitCode);
        packages.Append(CultureInfo.InvariantCulture, $"{control}Filename: {deb}\nSize: {new FileInfo(folder[deb]).Length}\nSHA256: {Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(folder[deb])))}\n\n");
        lock (packages)
        {
            var list = Encoding.UTF8.GetBytes(packages.ToString());
            File.WriteAllBytes(folder["Packages"], list);
            File.WriteAllText(
                folder["Release"],
                $"Suite: test\nCodename: test\nComponents: main\nArchitectures: amd64\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {Convert.ToHexStringLower(SHA256.HashData(list))} {list.Length} main/binary-amd64/Packages\n");
        }
    }

    public async ValueTask DisposeAsync()
    {
        listener.Close();
        await serving;
        folder.Dispose();
    }

    private async Task ServeAsync()
    {
        while (true)
        {
            HttpListenerContext request;
            try
            {
                request = await listener.GetContextAsync();
            }
            catch (Exception exception) when (exception is HttpListenerException or ObjectDisposedException)
            {
                return;
            }

            var file = folder[Path.GetFileName(request.Request.Url!.AbsolutePath)];
            byte[] content;
            lock (packages)
            {
                content = File.Exists(file) ? File.ReadAllBytes(file) : [];
            }

            request.Response.StatusCode = content.Length > 0 ? 200 : 404;
            request.Response.ContentLength64 = content.Length;
            await request.Response.OutputStream.WriteAsync(content);
            request.Response.Close();
        }
    }
}
