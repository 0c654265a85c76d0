using System.Buffers.Binary;
using System.Text;

namespace Nacre.Volumes;

/// <summary>The content of a snapshot's slot: number (4 bytes), length of the name (4), milliseconds since 1970 (8), the volume's blocks then
/// (4), reserved (4), name (UTF-8).</summary>
internal static class SnapshotRecord
{
    private const int NameOffset = 24;

    public static void Write(Span<byte> content, uint id, string name, DateTimeOffset taken, uint blocks)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(content, id);
        BinaryPrimitives.WriteInt32LittleEndian(content[4..], Encoding.UTF8.GetBytes(name, content[NameOffset..]));
        BinaryPrimitives.WriteInt64LittleEndian(content[8..], taken.ToUnixTimeMilliseconds());
        BinaryPrimitives.WriteUInt32LittleEndian(content[16..], blocks);
    }

    public static bool TryRead(ReadOnlySpan<byte> content, out uint id, out string name, out DateTimeOffset taken, out uint blocks)
    {
        id = BinaryPrimitives.ReadUInt32LittleEndian(content);
        blocks = BinaryPrimitives.ReadUInt32LittleEndian(content[16..]);
        var length = BinaryPrimitives.ReadInt32LittleEndian(content[4..]);
        var time = BinaryPrimitives.ReadInt64LittleEndian(content[8..]);
        if (blocks == 0 || length is < 1 or > CheckpointFile.MaximumNameBytes
            || time < DateTimeOffset.MinValue.ToUnixTimeMilliseconds() || time > DateTimeOffset.MaxValue.ToUnixTimeMilliseconds())
        {
            (name, taken) = ("", default);
            return false;
        }

        name = Encoding.UTF8.GetString(content.Slice(NameOffset, length));
        taken = DateTimeOffset.FromUnixTimeMilliseconds(time);
        return true;
    }
}
