using Nacre.Testing;
using Xunit;
using static Nacre.Volumes.Tests.TestVolume;

namespace Nacre.Volumes.Tests;

public sealed class TamperTests
{
    private static readonly byte[] Canary = "a canary sings in the mine, and everybody hears"u8.ToArray();

    private static async Task<Dictionary<string, byte[]>> FilesAsync(bool closed)
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small, Key);
        for (var block = 0; block < 60; block++)
        {
            var content = Content(block, 1 + (block % 2));
            Canary.CopyTo(content, 100);
            await volume.WriteAsync(block, content);
            if (block % 5 == 0)
            {
                await volume.FlushAsync(None);
            }
        }

        await volume.FlushAsync(None);
        if (closed)
        {
            await volume.DisposeAsync();
        }

        return new Dictionary<string, byte[]>(storage.Content);
    }

    private static async Task<VolumeException?> OpenAndReadAsync(Dictionary<string, byte[]> files, byte[] expected)
    {
        try
        {
            var content = await ReadAllAsync(Volume.Open(RecordingStorage.Of(files), Key, Small));
            Assert.True(content.AsSpan().SequenceEqual(expected), "tampered content was served");
            return null;
        }
        catch (VolumeException e)
        {
            return e;
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    [Spec("VOL-002", "VOL-032")]
    public async Task Flipped_bit_anywhere_is_never_served(bool closed)
    {
        var random = new Random(Seed());
        var files = await FilesAsync(closed);
        var expected = await ReadAllAsync(Volume.Open(RecordingStorage.Of(files), Key, Small));
        foreach (var (name, bytes) in files)
        {
            for (var i = 0; i < 60; i++)
            {
                var changed = (byte[])bytes.Clone();
                var at = random.Next(i < 20 ? Math.Min(bytes.Length, 128) : bytes.Length);
                changed[at] ^= (byte)(1 << random.Next(8));
                var error = await OpenAndReadAsync(new(files) { [name] = changed }, closed ? expected : await TailAsync(files, name, changed) ?? expected);
                if (closed)
                {
                    Assert.True(error is not null || name == "header", $"{name}: a bit at {at} changed and nobody noticed");
                }

                Assert.True(error is null or { Kind: VolumeErrorKind.NotAuthentic or VolumeErrorKind.Corrupt or VolumeErrorKind.Truncated }
                    || (name == "header" && error.Kind is VolumeErrorKind.WrongKey or VolumeErrorKind.Unsupported), $"{name} at {at}: {error}");
            }
        }
    }

    // The last slots before a power loss have no witness: a change there reads as a loss of what came after, never as other content.
    private static async Task<byte[]?> TailAsync(Dictionary<string, byte[]> files, string name, byte[] changed)
    {
        try
        {
            var content = await ReadAllAsync(Volume.Open(RecordingStorage.Of(new Dictionary<string, byte[]>(files) { [name] = changed }), Key, Small));
            var full = await ReadAllAsync(Volume.Open(RecordingStorage.Of(files), Key, Small));
            for (var block = 0; block < 64; block++)
            {
                var range = new Range(block * Block, (block + 1) * Block);
                Assert.True(content[range].AsSpan().SequenceEqual(full[range]) || (block >= 55 && !content[range].AsSpan().ContainsAnyExcept((byte)0)), $"{name}: block {block}");
            }

            return content;
        }
        catch (VolumeException)
        {
            return null;
        }
    }

    [Fact]
    public async Task Damage_before_a_flushed_slot_is_refused_by_name()
    {
        var files = await FilesAsync(closed: false);
        var last = files.Keys.Where(name => name.StartsWith("segment", StringComparison.Ordinal)).Max()!;
        files[last] = (byte[])files[last].Clone();
        files[last][Segment.PositionOf(1) + 50] ^= 1;
        var error = await OpenAndReadAsync(files, []);
        Assert.Equal(VolumeErrorKind.NotAuthentic, error?.Kind);
        Assert.Contains($"slot 1 of {last}", error!.Message, StringComparison.Ordinal);
    }

    [Fact]
    [Spec("VOL-002", "VOL-043")]
    public async Task Cut_file_is_truncated_by_name()
    {
        var files = await FilesAsync(closed: true);
        foreach (var (name, bytes) in files.Where(pair => pair.Key != "lock"))
        {
            var error = await OpenAndReadAsync(new(files) { [name] = bytes[..^1] }, []);
            Assert.True(error is { Kind: VolumeErrorKind.Truncated }, $"{name}: {error}");
            Assert.Contains(name, error.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    [Spec("VOL-043")]
    public async Task Missing_segment_or_checkpoint_is_refused_by_name()
    {
        var files = await FilesAsync(closed: true);
        foreach (var name in files.Keys.Where(name => name.StartsWith("segment", StringComparison.Ordinal)))
        {
            var fewer = new Dictionary<string, byte[]>(files);
            fewer.Remove(name);
            var error = await OpenAndReadAsync(fewer, []);
            Assert.Equal(VolumeErrorKind.Corrupt, error?.Kind);
            Assert.Contains(name, error!.Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Swapped_segments_are_not_authentic(bool closed)
    {
        var files = await FilesAsync(closed);
        (files["segment-00000001"], files["segment-00000002"]) = (files["segment-00000002"], files["segment-00000001"]);
        Assert.Equal(VolumeErrorKind.NotAuthentic, (await OpenAndReadAsync(files, []))?.Kind);
    }

    [Fact]
    [Spec("VOL-032")]
    public async Task Swapped_slots_are_not_authentic()
    {
        var files = await FilesAsync(closed: true);
        var segment = (byte[])files["segment-00000001"].Clone();
        var (first, second) = ((int)Segment.PositionOf(1), (int)Segment.PositionOf(2));
        files["segment-00000001"].AsSpan(first, Segment.SlotSize).CopyTo(segment.AsSpan(second));
        files["segment-00000001"].AsSpan(second, Segment.SlotSize).CopyTo(segment.AsSpan(first));
        files["segment-00000001"] = segment;
        Assert.Equal(VolumeErrorKind.NotAuthentic, (await OpenAndReadAsync(files, []))?.Kind);
    }

    [Fact]
    public async Task Files_of_another_volume_are_not_authentic()
    {
        var files = await FilesAsync(closed: true);
        var other = await FilesAsync(closed: true);
        foreach (var name in files.Keys.Where(name => name is not ("lock" or "header")))
        {
            Assert.Equal(VolumeErrorKind.NotAuthentic, (await OpenAndReadAsync(new(files) { [name] = other[name] }, []))?.Kind);
        }
    }

    [Fact]
    [Spec("VOL-020", "VOL-021")]
    public async Task Wrong_key_and_unknown_features_are_told_apart()
    {
        var files = await FilesAsync(closed: true);
        await FailsAsync(VolumeErrorKind.WrongKey, () => Task.Run(() => Volume.Open(RecordingStorage.Of(files), new byte[32], null)));
        foreach (var at in new[] { 8, 12, 15 })
        {
            var header = (byte[])files["header"].Clone();
            header[at] ^= 0x40;
            Assert.Equal(VolumeErrorKind.Unsupported, (await OpenAndReadAsync(new(files) { ["header"] = header }, []))?.Kind);
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task No_file_holds_plaintext(bool closed)
    {
        foreach (var (name, bytes) in await FilesAsync(closed))
        {
            Assert.True(bytes.AsSpan().IndexOf(Canary.AsSpan(0, 8)) < 0, name);
            Assert.True(bytes.AsSpan().IndexOf(Key.AsSpan(0, 8)) < 0, name);
        }
    }
}
