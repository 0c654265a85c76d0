using System.Buffers.Binary;
using System.Security.Cryptography;
using Nacre.Volumes.Storage;

namespace Nacre.Volumes;

/// <summary>How a checkpoint's body is sealed: a header in the clear, then chunks that it vouches for (SPEC, "Checkpoints").</summary>
internal static class CheckpointSeal
{
    public const int HeaderSize = 64;
    public const int ChunkSize = 65536;
    public const int MinimumBody = 64;

    public static ReadOnlySpan<byte> Magic => "NACRECHK"u8;

    public static AesGcm CipherOf(VolumeKeys keys, UInt128 id)
    {
        Span<byte> key = stackalloc byte[VolumeKeys.KeySize];
        keys.DeriveCheckpointKey(id, key);
        var cipher = new AesGcm(key, VolumeKeys.TagSize);
        CryptographicOperations.ZeroMemory(key);
        return cipher;
    }
}

/// <summary>Writes the body in sealed chunks; <see cref="Complete"/> ends it.</summary>
internal sealed class CheckpointWriter : IDisposable
{
    private readonly IStorageFile _file;
    private readonly AesGcm _cipher;
    private readonly byte[] _header = new byte[CheckpointSeal.HeaderSize];
    private readonly byte[] _chunk = new byte[CheckpointSeal.ChunkSize + VolumeKeys.TagSize];
    private readonly byte[] _nonce = new byte[VolumeKeys.NonceSize];
    private int _used;
    private int _chunks;

    public CheckpointWriter(VolumeKeys keys, IStorageFile file, uint number, long bodyLength)
    {
        _file = file;
        var id = VolumeKeys.NewId();
        _cipher = CheckpointSeal.CipherOf(keys, id);
        CheckpointSeal.Magic.CopyTo(_header);
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
            var part = Math.Min(bytes.Length, CheckpointSeal.ChunkSize - _used);
            bytes[..part].CopyTo(_chunk.AsSpan(_used));
            bytes = bytes[part..];
            _used += part;
            if (_used == CheckpointSeal.ChunkSize)
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
            _file.Write(CheckpointSeal.HeaderSize + ((long)_chunks * _chunk.Length), _chunk.AsSpan(0, _used + VolumeKeys.TagSize));
            _chunks++;
            _used = 0;
        }
    }

    public void Dispose() => _cipher.Dispose();
}

/// <summary>Reads a body and authenticates each chunk before any of it is seen.</summary>
internal sealed class CheckpointReader : IDisposable
{
    private readonly IStorageFile _file;
    private readonly AesGcm _cipher;
    private readonly string _name;
    private readonly byte[] _header = new byte[CheckpointSeal.HeaderSize];
    private readonly byte[] _chunk = new byte[CheckpointSeal.ChunkSize + VolumeKeys.TagSize];
    private readonly byte[] _nonce = new byte[VolumeKeys.NonceSize];
    private int _position;
    private int _filled;
    private int _chunks;

    public CheckpointReader(VolumeKeys keys, IStorageFile file, uint number)
    {
        _file = file;
        _name = VolumeFiles.Checkpoint(number);
        if (file.Read(0, _header) < CheckpointSeal.HeaderSize)
        {
            throw new VolumeException(VolumeErrorKind.Truncated, $"{_name} is cut short in its header");
        }

        _cipher = CheckpointSeal.CipherOf(keys, BinaryPrimitives.ReadUInt128LittleEndian(_header.AsSpan(16)));
        BodyLength = BinaryPrimitives.ReadInt64LittleEndian(_header.AsSpan(48));
        var authentic = false;
        try
        {
            // The header is the additional data of every chunk: the first one vouches for it.
            authentic = BodyLength is >= CheckpointSeal.MinimumBody and < 1L << 40 && Fill();
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

        if (!_header.AsSpan(0, 8).SequenceEqual(CheckpointSeal.Magic) || BinaryPrimitives.ReadUInt32LittleEndian(_header.AsSpan(8)) != VolumeHeader.FormatVersion)
        {
            _cipher.Dispose();
            throw new VolumeException(VolumeErrorKind.Corrupt, $"{_name} contradicts itself");
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
        var length = (int)Math.Min(CheckpointSeal.ChunkSize, BodyLength - ((long)_chunks * CheckpointSeal.ChunkSize));
        var sealedLength = length + VolumeKeys.TagSize;
        if (length <= 0)
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, $"{_name} contradicts itself");
        }

        if (_file.Read(CheckpointSeal.HeaderSize + ((long)_chunks * _chunk.Length), _chunk.AsSpan(0, sealedLength)) < sealedLength)
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
