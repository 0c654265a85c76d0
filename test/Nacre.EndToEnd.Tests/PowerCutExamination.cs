using System.Diagnostics;
using System.Security.Cryptography;
using Nacre.Testing;
using Nacre.Volumes;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>Does on the host, with the same programs, what the guest of PowerCutTests does to find out what a power cut left, and says it in
/// the same words.</summary>
internal sealed class PowerCutExamination(string queries) : IDisposable
{
    private readonly TemporaryDirectory folder = new();

    public async Task ReadAsync(IBlockDevice device, Action<string> read, CancellationToken cancellationToken)
    {
        var image = folder["image"];
        await ExportAsync(device, image, cancellationToken);
        await RunAsync(1, null, "e2fsck", "-p", image);
        await RunAsync(0, null, "e2fsck", "-fn", image);
        read("FSCK e2fsck");

        var root = Directory.CreateDirectory(folder["root"]);
        await RunAsync(0, null, "debugfs", "-R", $"rdump /files /db /db-wal /db-journal {root.FullName}", image);
        read((await RunAsync(0, queries, "sqlite3", "-bail", Path.Combine(root.FullName, "db"))).TrimEnd());
        foreach (var path in Directory.GetFiles(Path.Combine(root.FullName, "files"), "*-*"))
        {
            var name = Path.GetFileName(path);
            var sum = Convert.ToHexStringLower(SHA256.HashData(await File.ReadAllBytesAsync(path, cancellationToken)));
            read($"{(name.EndsWith(sum, StringComparison.Ordinal) ? "WHOLE" : "BROKEN")} {name}");
        }

        read("CHECKED");
        root.Delete(recursive: true);
    }

    public void Dispose() => folder.Dispose();

    private static async Task ExportAsync(IBlockDevice device, string image, CancellationToken cancellationToken)
    {
        await using var file = new FileStream(image, FileMode.Create);
        file.SetLength(device.Size);
        var buffer = new byte[1 << 20];
        for (var offset = 0L; offset < device.Size; offset += buffer.Length)
        {
            await device.ReadAsync(offset, buffer, cancellationToken);
            if (buffer.AsSpan().ContainsAnyExcept((byte)0))
            {
                file.Position = offset;
                await file.WriteAsync(buffer, cancellationToken);
            }
        }
    }

    private static async Task<string> RunAsync(int highestCode, string? input, string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(Require.Tool(program), arguments) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        using var process = Process.Start(start)!;
        if (input is not null)
        {
            await process.StandardInput.WriteAsync(await File.ReadAllTextAsync(input));
        }

        process.StandardInput.Close();
        var errors = process.StandardError.ReadToEndAsync();
        var output = await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();
        Assert.True(process.ExitCode <= highestCode, $"{program} {string.Join(' ', arguments)} ended with {process.ExitCode}\n{output}{await errors}");
        return output;
    }
}
