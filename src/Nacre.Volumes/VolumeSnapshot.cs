namespace Nacre.Volumes;

/// <summary>A state of a volume that is kept. Immutable.</summary>
/// <param name="Id">Its number in the volume, from 1, never given twice.</param>
/// <param name="Name">What people call it: 1 to 128 bytes of UTF-8, unique in the volume.</param>
/// <param name="Taken">When it was taken, by the host's clock.</param>
/// <param name="Size">The volume's size in bytes at that time.</param>
/// <param name="LiveBlocks">Blocks of <see cref="IBlockDevice.BlockSize"/> bytes that hold data in it.</param>
public sealed record VolumeSnapshot(uint Id, string Name, DateTimeOffset Taken, long Size, long LiveBlocks);
