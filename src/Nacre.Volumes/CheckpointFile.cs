using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Nacre.Volumes.Storage;

namespace Nacre.Volumes;

/// <summary>The files <c>checkpoint-…</c>: the whole map and the log's position, sealed in chunks (SPEC, "Checkpoints").</summary>
internal static class CheckpointFile
{
    private const int HeaderSize = 64;
    private const int ChunkSize = 65536;
    private const int FixedBodySize = 40;
    private const int SegmentEntrySize = 32;
    private const int PageSize = 4 + (BlockMap.PageEntries * 4);

    private static ReadOnlySpan<byte> Magic => "NACRECHK"u8;

    /// <summary>Writes checkpoint number <see cref="VolumeLog.Checkpoint"/> + 1, durable on return. The caller made all slots durable.</summary>
    /// <param name="log">The state to write.</param>
    /// <param name="keep">Which segments the checkpoint names; the others hold nothing live.</param>
    /// <returns>The file's length.</returns>
    public static long Write(VolumeLog log, Predicate<Segment> keep)
    {
        var segments = log.Segments.Where(segment => keep(segment)).ToArray();
        var body = FixedBodySize + ((long)segments.Length * SegmentEntrySize) + ((long)log.Map.AllocatedPages * PageSize);
        var number = log.Checkpoint + 1;
        var name = VolumeFiles.Checkpoint(number);
        var temporary = name + VolumeFiles.TemporarySuffix;
        using var file = log.Storage.Create(temporary);
        try
        {
            using var writer = new Writer(log.Keys, file, number, body);
            WriteBody(log, segments, writer);
            writer.Complete();
            file.SyncData();
        }
        catch (VolumeException)
        {
            log.Storage.Delete(temporary);
            throw;
        }

        log.Storage.Rename(temporary, name);
        log.Storage.SyncDirectory();
        return body;
    }

    /// <summary>Loads a checkpoint into an empty state, opening the segments that it names.</summary>
    public static void Load(VolumeLog log, uint number, bool writable)
    {
        var name = VolumeFiles.Checkpoint(number);
        using var file = log.Storage.Open(name, writable: false);
        using var reader = new Reader(log.Keys, file, number);
        Span<byte> head = stackalloc byte[FixedBodySize];
        reader.Read(head);
        var tailSlots = BinaryPrimitives.ReadInt32LittleEndian(head[28..]);
        log.Tail = new LogTail(BinaryPrimitives.ReadUInt32LittleEndian(head[24..]), BinaryPrimitives.ReadUInt128LittleEndian(head[8..]), tailSlots);
        var (segments, pages) = (BinaryPrimitives.ReadInt32LittleEndian(head[32..]), BinaryPrimitives.ReadInt32LittleEndian(head[36..]));
        var contradictory = BinaryPrimitives.ReadUInt32LittleEndian(head) != log.Map.Blocks || segments < 0 || pages < 0
            || tailSlots is < 0 or > Segment.MaximumSlots
            || reader.BodyLength != FixedBodySize + ((long)segments * SegmentEntrySize) + ((long)pages * PageSize);
        Require(!contradictory, name);
        var present = VolumeFiles.Segments(log.Storage.List());
        for (var i = 0; i < segments; i++)
        {
            LoadSegment(log, reader, present, name, writable);
        }

        var page = new byte[PageSize];
        for (var i = 0; i < pages; i++)
        {
            reader.Read(page);
            LoadPage(log, page, name);
        }

        log.Checkpoint = number;
        log.CheckpointTail = log.Tail;
        log.CheckpointBytes = reader.BodyLength;
    }

    private static void WriteBody(VolumeLog log, Segment[] segments, Writer writer)
    {
        Span<byte> head = stackalloc byte[FixedBodySize];
        head.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(head, log.Map.Blocks);
        BinaryPrimitives.WriteUInt128LittleEndian(head[8..], log.Tail.SegmentId);
        BinaryPrimitives.WriteUInt32LittleEndian(head[24..], log.Tail.Sequence);
        BinaryPrimitives.WriteInt32LittleEndian(head[28..], log.Tail.Slots);
        BinaryPrimitives.WriteInt32LittleEndian(head[32..], segments.Length);
        BinaryPrimitives.WriteInt32LittleEndian(head[36..], log.Map.AllocatedPages);
        writer.Write(head);
        Span<byte> entry = stackalloc byte[SegmentEntrySize];
        foreach (var segment in segments)
        {
            entry.Clear();
            BinaryPrimitives.WriteUInt128LittleEndian(entry, segment.Id);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[16..], segment.Sequence);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[20..], segment.Index);
            BinaryPrimitives.WriteInt32LittleEndian(entry[24..], segment.Count);
            writer.Write(entry);
        }

        Span<byte> pageIndex = stackalloc byte[4];
        for (var i = 0; i < log.Map.PageCount; i++)
        {
            if (log.Map.Page(i) is { } page)
            {
                BinaryPrimitives.WriteInt32LittleEndian(pageIndex, i);
                writer.Write(pageIndex);
                writer.Write(MemoryMarshal.AsBytes(page.AsSpan()));
            }
        }
    }

    private static void LoadSegment(VolumeLog log, Reader reader, SortedSet<uint> present, string name, bool writable)
    {
        Span<byte> entry = stackalloc byte[SegmentEntrySize];
        reader.Read(entry);
        var sequence = BinaryPrimitives.ReadUInt32LittleEndian(entry[16..]);
        var index = BinaryPrimitives.ReadUInt32LittleEndian(entry[20..]);
        var count = BinaryPrimitives.ReadInt32LittleEndian(entry[24..]);
        Require(index is > 0 and < 1 << 19 && log.SegmentAt(index) is null && count is >= 0 and <= Segment.MaximumSlots
            && sequence <= log.Tail.Sequence, name);
        if (!present.Contains(sequence))
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, $"{VolumeFiles.Segment(sequence)} is missing, and {name} needs it");
        }

        var segment = Segment.Open(log.Storage, log.Keys, sequence, writable && sequence == log.Tail.Sequence);
        log.AddAt(index, segment);
        if (segment.Id != BinaryPrimitives.ReadUInt128LittleEndian(entry))
        {
            throw new VolumeException(VolumeErrorKind.NotAuthentic, $"{segment.Name} is not the segment that {name} names");
        }

        if (segment.File.Length < Segment.PositionOf(count))
        {
            throw new VolumeException(VolumeErrorKind.Truncated, $"{segment.Name} ends before the {count} slots that {name} names");
        }

        segment.Count = count;
        segment.Flushed = count;
    }

    private static void LoadPage(VolumeLog log, ReadOnlySpan<byte> page, string name)
    {
        var start = (long)BinaryPrimitives.ReadUInt32LittleEndian(page) * BlockMap.PageEntries;
        for (var i = 0; i < BlockMap.PageEntries; i++)
        {
            var entry = BinaryPrimitives.ReadUInt32LittleEndian(page[(4 + (i * 4))..]);
            if (entry != 0)
            {
                var segment = log.SegmentAt(BlockMap.SegmentIndexOf(entry));
                var ordinal = BlockMap.OrdinalOf(entry);
                Require(start + i < log.Map.Blocks && segment is not null && ordinal < segment.Count, name);
                log.Place((uint)(start + i), segment!, ordinal);
            }
        }
    }

    private static void Require(bool condition, string name)
    {
        if (!condition)
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, $"{name} contradicts itself");
        }
    }

    private static AesGcm CipherOf(VolumeKeys keys, UInt128 id)
    {
        Span<byte> key = stackalloc byte[VolumeKeys.KeySize];
        keys.DeriveCheckpointKey(id, key);
        var cipher = new AesGcm(key, VolumeKeys.TagSize);
        CryptographicOperations.ZeroMemory(key);
        return cipher;
    }

    private sealed class Writer : IDisposable
    {
        private readonly IStorageFile _file;
        private readonly AesGcm _cipher;
        private readonly byte[] _header = new byte[HeaderSize];
        private readonly byte[] _chunk = new byte[ChunkSize + VolumeKeys.TagSize];
        private readonly byte[] _nonce = new byte[VolumeKeys.NonceSize];
        private int _used;
        private int _chunks;

        public Writer(VolumeKeys keys, IStorageFile file, uint number, long bodyLength)
        {
            _file = file;
            var id = VolumeKeys.NewId();
            _cipher = CipherOf(keys, id);
            Magic.CopyTo(_header);
            BinaryPrimitives.WriteUInt32LittleEndian(_header.AsSpan(8), VolumeHeader.FormatVersion);
            BinaryPrimitives.WriteUInt32LittleEndian(_header.AsSpan(12), number);
            BinaryPrimitives.WriteUInt128LittleEndian(_header.AsSpan(16), id);
            BinaryPrimitives.WriteUInt128LittleEndian(_header.AsSpan(32), keys.VolumeId);
            BinaryPrimitives.WriteInt64LittleEndian(_header.AsSpan(48), bodyLength);
            file.Write(0, _header);
        }

        public void Write(ReadOnlySpan<byte> bytes)
        {
            while (!bytes.IsEmpty)
            {
                var part = Math.Min(bytes.Length, ChunkSize - _used);
                bytes[..part].CopyTo(_chunk.AsSpan(_used));
                bytes = bytes[part..];
                _used += part;
                if (_used == ChunkSize)
                {
                    Complete();
                }
            }
        }

        public void Complete()
        {
            if (_used > 0)
            {
                BinaryPrimitives.WriteInt32LittleEndian(_nonce, _chunks);
                var text = _chunk.AsSpan(0, _used);
                _cipher.Encrypt(_nonce, text, text, _chunk.AsSpan(_used, VolumeKeys.TagSize), _header);
                _file.Write(HeaderSize + ((long)_chunks * _chunk.Length), _chunk.AsSpan(0, _used + VolumeKeys.TagSize));
                _chunks++;
                _used = 0;
            }
        }

        public void Dispose() => _cipher.Dispose();
    }

    private sealed class Reader : IDisposable
    {
        private readonly IStorageFile _file;
        private readonly AesGcm _cipher;
        private readonly string _name;
        private readonly byte[] _header = new byte[HeaderSize];
        private readonly byte[] _chunk = new byte[ChunkSize + VolumeKeys.TagSize];
        private readonly byte[] _nonce = new byte[VolumeKeys.NonceSize];
        private int _position;
        private int _filled;
        private int _chunks;

        public Reader(VolumeKeys keys, IStorageFile file, uint number)
        {
            _file = file;
            _name = VolumeFiles.Checkpoint(number);
            if (file.Read(0, _header) < HeaderSize)
            {
                throw new VolumeException(VolumeErrorKind.Truncated, $"{_name} is cut short in its header");
            }

            _cipher = CipherOf(keys, BinaryPrimitives.ReadUInt128LittleEndian(_header.AsSpan(16)));
            BodyLength = BinaryPrimitives.ReadInt64LittleEndian(_header.AsSpan(48));
            var authentic = false;
            try
            {
                // The header is the additional data of every chunk: the first one vouches for it.
                authentic = BodyLength is >= FixedBodySize and < 1L << 40 && Fill();
                authentic = authentic && BinaryPrimitives.ReadUInt32LittleEndian(_header.AsSpan(12)) == number
                    && BinaryPrimitives.ReadUInt128LittleEndian(_header.AsSpan(32)) == keys.VolumeId;
            }
            finally
            {
                if (!authentic)
                {
                    _cipher.Dispose();
                }
            }

            if (!authentic)
            {
                throw NotAuthentic();
            }
        }

        public long BodyLength { get; }

        public void Read(Span<byte> destination)
        {
            while (!destination.IsEmpty)
            {
                if (_position == _filled && !Fill())
                {
                    throw NotAuthentic();
                }

                var part = Math.Min(destination.Length, _filled - _position);
                _chunk.AsSpan(_position, part).CopyTo(destination);
                destination = destination[part..];
                _position += part;
            }
        }

        public void Dispose() => _cipher.Dispose();

        private bool Fill()
        {
            var length = (int)Math.Min(ChunkSize, BodyLength - ((long)_chunks * ChunkSize));
            var sealedLength = length + VolumeKeys.TagSize;
            if (length <= 0)
            {
                throw new VolumeException(VolumeErrorKind.Corrupt, $"{_name} contradicts itself");
            }

            if (_file.Read(HeaderSize + ((long)_chunks * _chunk.Length), _chunk.AsSpan(0, sealedLength)) < sealedLength)
            {
                throw new VolumeException(VolumeErrorKind.Truncated, $"{_name} is cut short");
            }

            BinaryPrimitives.WriteInt32LittleEndian(_nonce, _chunks);
            var text = _chunk.AsSpan(0, length);
            try
            {
                _cipher.Decrypt(_nonce, text, _chunk.AsSpan(length, VolumeKeys.TagSize), text, _header);
            }
            catch (AuthenticationTagMismatchException)
            {
                return false;
            }

            _chunks++;
            (_position, _filled) = (0, length);
            return true;
        }

        private VolumeException NotAuthentic() => new(VolumeErrorKind.NotAuthentic, $"{_name} is not the checkpoint that was written there");
    }
}
