using System.Buffers.Binary;
using System.Globalization;
using System.Security.Cryptography;
using System.Text.RegularExpressions;
using Nacre.Testing;
using Xunit;
using static Nacre.Volumes.Tests.TestVolume;

namespace Nacre.Volumes.Tests;

/// <summary>The bytes on the disk against SPEC.md.</summary>
public sealed partial class FormatTests
{
    private static readonly byte[] VolumeId = Counting(0xA0, 16);
    private static readonly byte[] SegmentId = Counting(0xB0, 16);
    private static readonly byte[] SlotKey = Counting(0x00, 32);
    private static readonly byte[] Master = Counting(0x20, 32);
    private static readonly byte[] ExampleContent = [.. Enumerable.Repeat((byte)0x5A, Block)];

    private static byte[] ExampleHeader => SpecifiedFormat.Header(VolumeId, Master, SlotKey, Counting(0xC0, 12), Counting(0xD0, 12), 1 << 20, 16);

    private static byte[] ExampleSegment =>
    [
        .. SpecifiedFormat.SegmentHeader(VolumeId, Master, SegmentId, 16, 1, new byte[16], 0),
        .. SpecifiedFormat.Slot(VolumeId, Master, SegmentId, 0, 3, 0, 1, ExampleContent),
    ];

    [Fact]
    [Spec("VOL-010", "VOL-011")]
    public void The_worked_example_is_what_the_specification_says()
    {
        RequireExample("header", ExampleHeader);
        RequireExample("segment-00000001", ExampleSegment);
    }

    [Fact]
    [Spec("VOL-010", "VOL-011", "VOL-032")]
    public async Task The_worked_example_opens_and_reads()
    {
        var files = new Dictionary<string, byte[]> { ["header"] = ExampleHeader, ["segment-00000001"] = ExampleSegment };
        await using var volume = Volume.Open(RecordingStorage.Of(files), SlotKey, null);
        Assert.Equal(1 << 20, volume.Size);
        var expected = new byte[volume.Size];
        ExampleContent.CopyTo(expected, 3 * Block);
        Assert.Equal(expected, await ReadAllAsync(volume));
    }

    [Fact]
    [Spec("VOL-010", "VOL-011", "VOL-012", "VOL-033")]
    public async Task What_a_volume_writes_is_byte_for_byte_what_the_specification_says()
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small, Key);
        await volume.WriteAsync(7, Content(7, 1));
        await volume.FlushAsync(None);
        await volume.WriteAsync(8, Content(8, 2));
        await volume.TrimAsync(6 * Block, 2 * Block, None);
        var header = storage.Content["header"];
        var id = header[16..32];
        var master = SpecifiedFormat.Master(header, Key);
        Assert.Equal(SpecifiedFormat.Header(id, master, Key, header[68..80], header[4064..4076], Small.Size, Small.SegmentSlots), header);

        var segment = storage.Content["segment-00000001"];
        var segmentId = segment[16..32];
        Assert.NotEqual(id, segmentId);
        byte[] expected =
        [
            .. SpecifiedFormat.SegmentHeader(id, master, segmentId, Small.SegmentSlots, 1, new byte[16], 0),
            .. SpecifiedFormat.Slot(id, master, segmentId, 0, 7, 0, 1, Content(7, 1)),
            .. SpecifiedFormat.Slot(id, master, segmentId, 1, 8, 1, 1, Content(8, 2)),
            .. SpecifiedFormat.Slot(id, master, segmentId, 2, 6, 1, 3, [2, 0, 0, 0]),
        ];
        Assert.Equal(expected, segment[..expected.Length]);
        Assert.Equal(Segment.PositionOf(Small.SegmentSlots), segment.Length);
        Assert.False(segment.AsSpan(expected.Length).ContainsAnyExcept((byte)0));
    }

    [Theory]
    [InlineData(8, 1)]
    [InlineData(8, 3)]
    [InlineData(12, 1)]
    [InlineData(15, 0x80)]
    [Spec("VOL-021", "VOL-022")]
    public async Task Other_version_or_unknown_feature_is_unsupported_whatever_the_key(int at, byte value)
    {
        var header = ExampleHeader;
        header[at] = value;
        var files = new Dictionary<string, byte[]> { ["header"] = header, ["segment-00000001"] = ExampleSegment };
        foreach (var key in new[] { SlotKey, new byte[32] })
        {
            await FailsAsync(VolumeErrorKind.Unsupported, () => Task.Run(() => Volume.Open(RecordingStorage.Of(files), key, null)));
        }
    }

    [Theory]
    [InlineData(0L, 16)]
    [InlineData(-4096L, 16)]
    [InlineData(4097L, 16)]
    [InlineData((8L << 40) + 4096, 16)]
    [InlineData(1L << 20, 0)]
    [InlineData(1L << 20, 8193)]
    [InlineData(1L << 20, -1)]
    [Spec("VOL-021")]
    public async Task Authentic_header_with_impossible_values_is_corrupt(long size, int segmentSlots)
    {
        var header = SpecifiedFormat.Header(VolumeId, Master, SlotKey, Counting(0xC0, 12), Counting(0xD0, 12), size, segmentSlots);
        await FailsAsync(
            VolumeErrorKind.Corrupt, () => Task.Run(() => Volume.Open(RecordingStorage.Of(new Dictionary<string, byte[]> { ["header"] = header }), SlotKey, null)));
    }

    [Theory]
    [InlineData(1, 256u)]
    [InlineData(0, 0u)]
    [InlineData(2, 0u)]
    [InlineData(3, 255u)]
    [InlineData(5, 0u)]
    [InlineData(6, 0u)]
    [InlineData(7, 0u)]
    [InlineData(8, 0u)]
    [InlineData(255, 0u)]
    [Spec("VOL-054")]
    public async Task Authentic_slot_that_makes_no_sense_is_corrupt(byte kind, uint block)
    {
        byte[] segment =
        [
            .. SpecifiedFormat.SegmentHeader(VolumeId, Master, SegmentId, 16, 1, new byte[16], 0),
            .. SpecifiedFormat.Slot(VolumeId, Master, SegmentId, 0, block, 0, kind, ExampleContent),
        ];
        var files = new Dictionary<string, byte[]> { ["header"] = ExampleHeader, ["segment-00000001"] = segment };
        await FailsAsync(VolumeErrorKind.Corrupt, () => Task.Run(() => Volume.Open(RecordingStorage.Of(files), SlotKey, null)));
    }

    [Theory]
    [InlineData(0, 0xFFFFFFFF)]
    [InlineData(28, 0xFFFFFFFF)]
    [InlineData(32, 0)]
    [InlineData(32, 3)]
    [InlineData(32, 0x7FFFFFFF)]
    [InlineData(36, 0)]
    [InlineData(36, 0x7FFFFFFF)]
    [InlineData(40, 2)]
    [InlineData(44, 1)]
    [InlineData(44, 4097)]
    [InlineData(64 + 20, 0)]
    [InlineData(64 + 20, 1u << 19)]
    [InlineData(64 + 24, 3)]
    [InlineData(64 + 24, 8193)]
    [InlineData(64 + 32, 5u << 13)]
    [InlineData(64 + 32, (1u << 13) + 9)]
    [Spec("VOL-043")]
    public async Task Authentic_checkpoint_that_contradicts_itself_is_corrupt_or_truncated(int at, uint value)
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small, Key);
        for (var block = 0; block < 9; block++)
        {
            await volume.WriteAsync(block, Content(block, 1));
        }

        await volume.DisposeAsync();
        var checkpoint = storage.Content.Keys.Single(name => name.StartsWith("checkpoint", StringComparison.Ordinal));
        var number = uint.Parse(checkpoint[^8..], NumberStyles.HexNumber, CultureInfo.InvariantCulture);
        byte[] body;
        using (var keys = VolumeHeader.Read(storage).Unlock(Key))
        {
            using (var reader = new CheckpointReader(keys, storage.Open(checkpoint, writable: false), number))
            {
                body = new byte[reader.BodyLength];
                reader.Read(body);
            }

            Assert.NotEqual(value, BinaryPrimitives.ReadUInt32LittleEndian(body.AsSpan(at)));
            BinaryPrimitives.WriteUInt32LittleEndian(body.AsSpan(at), value);
            using var file = storage.Create(checkpoint);
            using var writer = new CheckpointWriter(keys, file, number, body.Length);
            writer.Write(body);
            writer.Complete();
        }

        var error = await Assert.ThrowsAsync<VolumeException>(async () => await ReadAllAsync(Volume.Open(RecordingStorage.Of(storage.Content), Key, Small)));
        Assert.True(error.Kind is VolumeErrorKind.Corrupt or VolumeErrorKind.Truncated, $"{error}");
    }

    /// <summary>Compares a file with its section of SPEC.md: the bytes that are shown, zero elsewhere unless the section says otherwise, and its hash.</summary>
    private static void RequireExample(string name, byte[] bytes)
    {
        var text = File.ReadAllText(Repository.At("src", "Nacre.Volumes", "SPEC.md"));
        var section = Section().Matches(text).SingleOrDefault(match => match.Groups[1].Value == name)?.Groups[2].Value;
        Assert.True(section is not null, $"SPEC.md has no example of {name}");
        var shown = 0;
        foreach (var line in Line().Matches(section).Cast<Match>())
        {
            var offset = int.Parse(line.Groups[1].Value, NumberStyles.HexNumber, CultureInfo.InvariantCulture);
            var expected = Convert.FromHexString(line.Groups[2].Value.Replace(" ", "", StringComparison.Ordinal));
            Assert.True(bytes.AsSpan(offset, expected.Length).SequenceEqual(expected), $"{name} at {offset:x4} is {Convert.ToHexStringLower(bytes.AsSpan(offset, expected.Length))}");
            shown += expected.Length;
        }

        Assert.True(shown >= 128, "hardly anything is shown");
        Assert.True(
            section.Contains($"{bytes.Length} bytes, SHA-256 {Convert.ToHexStringLower(SHA256.HashData(bytes))}", StringComparison.Ordinal),
            $"{name}: {bytes.Length} bytes, SHA-256 {Convert.ToHexStringLower(SHA256.HashData(bytes))}");
    }

    private static byte[] Counting(byte first, int count) => [.. Enumerable.Range(first, count).Select(value => (byte)value)];

    [GeneratedRegex(@"^`([a-z0-9-]+)`: ((?:.*\n)+?\n```\n(?:.*\n)+?```)$", RegexOptions.Multiline)]
    private static partial Regex Section();

    [GeneratedRegex(@"^([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)$", RegexOptions.Multiline)]
    private static partial Regex Line();
}
