using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;
using Nacre.Images.FileSystems;
using Nacre.Testing;
using Nacre.Volumes;
using Xunit;

namespace Nacre.Images.Tests.FileSystems;

/// <summary>Images that mkfs.erofs makes, whole and damaged.</summary>
public sealed partial class ErofsFilesTests : IDisposable
{
    private const int Block = 4096;

    private readonly TemporaryDirectory folder = new();

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("-Enoinline_data")]
    [InlineData("-x-1")]
    [InlineData("--chunksize=4096")]
    [InlineData("--chunksize=8192", "-x1000000")]
    [InlineData("--chunksize=4096", "-Eforce-chunk-indexes")]
    [InlineData("-Eforce-inode-extended", "-x1000000")]
    [InlineData("-Eforce-inode-compact")]
    public async Task Every_block_of_every_file_leads_to_its_path(params string[] options)
    {
        var (image, contents) = await MakeAsync(options);
        var blocks = image.Length / Block;
        var search = await FindAsync(image, [.. Enumerable.Range(0, blocks).Select(block => new ByteRange(block * Block, Block))]);
        Assert.Empty(search.Unreadable);
        Assert.True(search.IsComplete);
        foreach (var (path, content) in contents)
        {
            // Each block of a file is random, so its place in the image is known.
            for (var at = 0; at < content.Length; at += Block)
            {
                var part = content.AsSpan(at, Math.Min(Block, content.Length - at));
                var place = image.AsSpan().IndexOf(part);
                Assert.True(place >= 0, $"{path} from {at} on is not in the image");
                Assert.Contains(path, search.Files[place / Block]);
            }
        }

        // And no path where the file has nothing: a block of another file's data has one path.
        var big = image.AsSpan().IndexOf(contents["/big"].AsSpan(Block, Block));
        Assert.Equal(["/big"], search.Files[big / Block].Where(path => path.StartsWith("/b", StringComparison.Ordinal)));
        Assert.DoesNotContain("/usr/share/a", search.Files[big / Block]);
    }

    [Theory]
    [InlineData("-Enoinline_data")]
    [InlineData("-Eforce-inode-extended", "-x1000000")]
    [InlineData("-Eforce-inode-compact")]
    public async Task A_file_is_read_by_its_path(params string[] options)
    {
        var (image, contents) = await MakeAsync(options);
        foreach (var (path, content) in contents)
        {
            Assert.Equal(content, await ReadAsync(image, path));
        }

        Assert.Empty((await ReadAsync(image, "/many/file-0123"))!);
        foreach (var path in new[] { "/nothing", "/usr", "/", "/big/below", "/link", "/usr/share/../share/a" })
        {
            Assert.Null(await ReadAsync(image, path));
        }

        Assert.Contains("file-0123", (await ErofsFiles.ListAsync(new BytesDevice(image), "many", TestContext.Current.CancellationToken))!);
        Assert.Null(await ErofsFiles.ListAsync(new BytesDevice(image), "/big", TestContext.Current.CancellationToken));
        Assert.Null(await ErofsFiles.ListAsync(new BytesDevice(image), "/nothing", TestContext.Current.CancellationToken));
        Assert.Null(await ErofsFiles.ReadAsync(new BytesDevice(image), "/big", contents["/big"].Length - 1, TestContext.Current.CancellationToken));

        // Damaged anywhere, it is the content, something else of that length or nothing; never an exception.
        var random = new Random(1);
        for (var i = 0; i < 300; i++)
        {
            var damaged = (byte[])image.Clone();
            for (var at = 0; at < 64; at++)
            {
                damaged[random.Next(damaged.Length)] = (byte)random.Next(256);
                damaged[1024 + random.Next(7168)] = (byte)random.Next(256);
            }

            _ = await ReadAsync(damaged, "/usr/share/a");
        }
    }

    [Theory]
    [InlineData("-zlz4")]
    [InlineData("-zlz4", "-C65536")]
    [InlineData("-zlz4hc", "-Elegacy-compress")]
    [InlineData("-zlz4hc,9", "-C16384", "-x1000000")]
    public async Task Compressed_blocks_lead_to_the_path_of_their_file(params string[] options)
    {
        var (image, contents) = await MakeAsync(options);
        foreach (var path in contents.Keys)
        {
            var extents = await ExtentsAsync(path);
            Assert.NotEmpty(extents);
            var search = await FindAsync(image, [.. extents.OrderBy(extent => extent.Offset)]);
            Assert.All(search.Files, files => Assert.Contains(path, files));
            Assert.Empty(search.Unreadable);
        }

        // The text is compressed, and what lies before and behind it is not named after it.
        var text = (await ExtentsAsync("/text")).OrderBy(extent => extent.Offset).ToArray();
        Assert.True(text.Sum(extent => extent.Length) < contents["/text"].Length / 2);
        var outside = await FindAsync(image, [new ByteRange(text[0].Offset - 1, 1), new ByteRange(text[^1].End, 1)]);
        Assert.All(outside.Files, files => Assert.DoesNotContain("/text", files));
    }

    [Fact]
    public async Task Compressed_tail_behind_an_inode_leads_to_its_file()
    {
        var (image, contents) = await MakeAsync("-zlz4", "-Eztailpacking");
        Assert.Contains("/lines", contents);
        var extent = Assert.Single(await ExtentsAsync("/lines"));
        Assert.NotEqual(0, extent.Offset % Block);
        var search = await FindAsync(image, [new ByteRange(extent.Offset, 1), new ByteRange(extent.End - 1, 1)]);
        Assert.All(search.Files, files => Assert.Contains("/lines", files));
    }

    [Fact]
    public async Task Inode_and_directory_lead_to_their_paths()
    {
        var (image, _) = await MakeAsync("-Enoinline_data");
        var device = new BytesDevice(image);
        foreach (var path in new[] { "/usr/share/", "/usr/share/a", "/link" })
        {
            var position = await InodePositionAsync(path);
            var search = await ErofsFiles.FindAsync(device, [new ByteRange(position, 1)], TestContext.Current.CancellationToken);
            Assert.Contains(path, search!.Files[0]);
        }
    }

    [Fact]
    public async Task Directory_that_can_t_be_read_is_named_and_the_rest_is_found()
    {
        var (image, contents) = await MakeAsync("-Enoinline_data");
        var device = new BytesDevice(image);
        var listing = image.AsSpan().IndexOf("file-0001"u8) / Block * Block;
        device.Damaged.Add(listing);
        var file = image.AsSpan().IndexOf(contents["/big"].AsSpan(Block, Block)) / Block * Block;
        device.Damaged.Add(file);
        var search = await ErofsFiles.FindAsync(
            device, [new ByteRange(Math.Min(listing, file), Block), new ByteRange(Math.Max(listing, file), Block)], TestContext.Current.CancellationToken);
        Assert.Equal(["/many/"], search!.Unreadable);
        Assert.Equal(["/big"], search.Files[file > listing ? 1 : 0]);
        Assert.Equal(["/many/"], search.Files[file > listing ? 0 : 1]);
    }

    [Fact]
    public async Task Device_without_the_file_system_or_with_a_newer_one_gives_nothing()
    {
        var (image, _) = await MakeAsync("-Enoinline_data");
        Assert.Null(await ErofsFiles.FindAsync(new BytesDevice(new byte[Block]), [], TestContext.Current.CancellationToken));
        Assert.Null(await ErofsFiles.FindAsync(new BytesDevice(new byte[512]), [], TestContext.Current.CancellationToken));
        Assert.Null(await ErofsFiles.FindAsync(new BytesDevice(image) { Damaged = { 0 } }, [], TestContext.Current.CancellationToken));
        image[1024 + 81] |= 0x10;
        Assert.Null(await ErofsFiles.FindAsync(new BytesDevice(image), [], TestContext.Current.CancellationToken));
    }

    [Theory]
    [InlineData("-Enoinline_data")]
    [InlineData("--chunksize=4096", "-x1000000")]
    [InlineData("-zlz4", "-C16384")]
    public async Task Random_bytes_in_the_image_never_throw_and_never_loop(params string[] options)
    {
        var seed = int.TryParse(Environment.GetEnvironmentVariable("NACRE_SEED"), CultureInfo.InvariantCulture, out var given) ? given : Random.Shared.Next();
        TestContext.Current.TestOutputHelper?.WriteLine($"NACRE_SEED={seed}");
        var random = new Random(seed);
        var (image, contents) = await MakeAsync(options);
        ByteRange[] ranges = [.. Enumerable.Range(0, image.Length / Block / 2).Select(i => new ByteRange(i * 2L * Block, Block))];

        // Where the structure is: everything that is no file's content.
        var places = Enumerable.Range(0, image.Length / Block).Where(block => !contents["/big"].AsSpan().ContainsAny(image.AsSpan(block * Block, 1)) || block < 40).ToArray();
        var watch = Stopwatch.StartNew();
        var runs = 0;
        for (; runs < 2000 && watch.Elapsed < TimeSpan.FromSeconds(20); runs++)
        {
            var damaged = (byte[])image.Clone();
            for (var i = random.Next(1, 40); i > 0; i--)
            {
                var at = (places[random.Next(places.Length)] * Block) + random.Next(Block);
                damaged[at] = random.Next(3) switch { 0 => (byte)random.Next(256), 1 => 0xFF, _ => (byte)(damaged[at] ^ (1 << random.Next(8))) };
            }

            using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(30));
            var device = new BytesDevice(damaged) { Damaged = { random.Next(1, places.Length) * Block } };
            var search = await ErofsFiles.FindAsync(device, ranges, limit.Token);
            Assert.True(search is null || search.Files.Count == ranges.Length);
        }

        Assert.True(runs > 50, $"only {runs} images in {watch.Elapsed}");
    }

    [Fact]
    public async Task Directory_that_contains_itself_under_many_names_ends()
    {
        var (image, _) = await MakeAsync("-Enoinline_data");

        // Every entry of the directory with many files becomes a directory: the root.
        var listing = image.AsSpan().IndexOf("file-0001"u8) / Block * Block;
        var root = BinaryPrimitives.ReadUInt16LittleEndian(image.AsSpan(1024 + 14));
        var entries = BinaryPrimitives.ReadUInt16LittleEndian(image.AsSpan(listing + 8)) / 12;
        for (var i = 0; i < entries; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(image.AsSpan(listing + (i * 12)), root);
            image[listing + (i * 12) + 10] = 2;
        }

        var search = await FindAsync(image, [new ByteRange(0, image.Length)]);
        Assert.Contains("/big", search.Files[0]);
        Assert.True(search.IsComplete);
    }

    private static async Task<ErofsSearch> FindAsync(byte[] image, ByteRange[] ranges) =>
        await ErofsFiles.FindAsync(new BytesDevice(image), ranges, TestContext.Current.CancellationToken) ?? throw new InvalidOperationException("no file system");

    /// <summary>Makes an image of a tree with small, large, sparse, empty and many files.</summary>
    private async Task<(byte[] Image, Dictionary<string, byte[]> Contents)> MakeAsync(params string[] options)
    {
        var random = new Random(11);
        var contents = new Dictionary<string, byte[]>
        {
            ["/big"] = new byte[300_000],
            ["/text"] = System.Text.Encoding.UTF8.GetBytes(string.Concat(Enumerable.Range(0, 40_000).Select(i => $"line {i % 977}\n"))),
            ["/lines"] = System.Text.Encoding.UTF8.GetBytes(string.Concat(Enumerable.Range(0, 2000).Select(i => $"line {i % 97}\n"))),
            ["/usr/share/a"] = new byte[100],
            ["/usr/share/b"] = new byte[Block],
            ["/usr/share/c"] = new byte[(2 * Block) + 17],
        };
        foreach (var (path, content) in contents)
        {
            if (!IsText(path))
            {
                random.NextBytes(content);
            }

            await WriteAsync(path, content);
        }

        for (var i = 0; i < 300; i++)
        {
            await WriteAsync($"/many/file-{i:0000}", []);
        }

        File.CreateSymbolicLink(folder["tree/link"], "usr/share/a");
        await RunAsync("mkfs.erofs", ["--quiet", "-T0", "-U", "00000000-0000-0000-0000-000000000001", .. options, folder["image"], folder["tree"]]);
        var image = await File.ReadAllBytesAsync(folder["image"], TestContext.Current.CancellationToken);
        Array.Resize(ref image, (image.Length + Block - 1) / Block * Block);
        return (image, options.Any(option => option.StartsWith("-z", StringComparison.Ordinal)) ? contents : contents.Where(pair => !IsText(pair.Key)).ToDictionary());

        static bool IsText(string path) => path is "/text" or "/lines";
    }

    private static Task<byte[]?> ReadAsync(byte[] image, string path) => ErofsFiles.ReadAsync(new BytesDevice(image), path, 1 << 24, TestContext.Current.CancellationToken);

    private async Task WriteAsync(string path, byte[] content)
    {
        var file = folder["tree"] + path;
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        await File.WriteAllBytesAsync(file, content, TestContext.Current.CancellationToken);
    }

    /// <summary>Where a file's blocks lie, as erofs-utils see it.</summary>
    private async Task<List<ByteRange>> ExtentsAsync(string path)
    {
        var output = await RunAsync("dump.erofs", [$"--path={path}", "-e", folder["image"]]);
        return [.. Extent().Matches(output).Select(match => (From: long.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture), To: long.Parse(match.Groups[2].Value, CultureInfo.InvariantCulture)))
            .Select(extent => new ByteRange(extent.From, extent.To - extent.From)).Distinct()];
    }

    private async Task<long> InodePositionAsync(string path)
    {
        var node = long.Parse(Node().Match(await RunAsync("dump.erofs", [$"--path={path}", folder["image"]])).Groups[1].Value, CultureInfo.InvariantCulture);
        var start = long.Parse(Start().Match(await RunAsync("dump.erofs", ["-s", folder["image"]])).Groups[1].Value, CultureInfo.InvariantCulture);
        return (start * Block) + (node * 32);
    }

    private static async Task<string> RunAsync(string tool, string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(Require.Tool(tool), arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        var output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        var error = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.True(process.ExitCode == 0, $"{tool} ended with {process.ExitCode}: {await error}");
        return await output;
    }

    [GeneratedRegex(@": +(\d+)\.\. +(\d+) \| +\d+ *$", RegexOptions.Multiline)]
    private static partial Regex Extent();

    [GeneratedRegex(@"NID: (\d+)")]
    private static partial Regex Node();

    [GeneratedRegex(@"inode metadata start block: +(\d+)")]
    private static partial Regex Start();

    /// <summary>A read-only device in memory, some of whose blocks can't be read.</summary>
    private sealed class BytesDevice(byte[] bytes) : IBlockDevice
    {
        public List<long> Damaged { get; } = [];

        public long Size => bytes.Length;

        public bool IsReadOnly => true;

        public ValueTask ReadAsync(long offset, Memory<byte> destination, CancellationToken cancellationToken)
        {
            cancellationToken.ThrowIfCancellationRequested();
            Assert.True(offset >= 0 && offset + destination.Length <= bytes.Length, "read outside of the device");
            if (Damaged.Any(block => block < offset + destination.Length && block + Block > offset))
            {
                return ValueTask.FromException(new VolumeException(VolumeErrorKind.NotAuthentic, "damaged"));
            }

            bytes.AsSpan((int)offset, destination.Length).CopyTo(destination.Span);
            return ValueTask.CompletedTask;
        }

        public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> source, bool forceUnitAccess, CancellationToken cancellationToken) => throw new NotSupportedException();

        public ValueTask FlushAsync(CancellationToken cancellationToken) => throw new NotSupportedException();

        public ValueTask TrimAsync(long offset, long length, CancellationToken cancellationToken) => throw new NotSupportedException();

        public ValueTask WriteZeroesAsync(long offset, long length, bool keepAllocated, bool forceUnitAccess, CancellationToken cancellationToken) => throw new NotSupportedException();

        public int DescribeExtents(long offset, long length, Span<BlockExtent> extents) => throw new NotSupportedException();

        public ValueTask DisposeAsync() => ValueTask.CompletedTask;
    }
}
