using Nacre.Volumes;

namespace Nacre.Images.FileSystems;

/// <summary>Bytes of a device.</summary>
/// <param name="Offset">The first one.</param>
/// <param name="Length">How many.</param>
public readonly record struct ByteRange(long Offset, long Length)
{
    /// <summary>The first byte behind it.</summary>
    public long End => Offset + Length;
}

/// <summary>Whose bytes some ranges of a file system hold.</summary>
/// <param name="Files">For each range that was asked for, in their order: the paths of the files and directories (these end with a slash)
/// of which it holds content or an inode. Names are as the file system has them: whatever prints them must expect control characters.</param>
/// <param name="Unreadable">Directories of which not all entries could be read, and files of which it could not be told where they lie.</param>
/// <param name="IsComplete">False if the file system is larger than the search goes.</param>
public sealed record ErofsSearch(IReadOnlyList<IReadOnlyList<string>> Files, IReadOnlyList<string> Unreadable, bool IsComplete);

/// <summary>Finds the files of an EROFS file system (a release's system disk) that lie in given ranges of its device.</summary>
/// <remarks>
/// <para>Format: the kernel's <c>fs/erofs/erofs_fs.h</c> and the documents of erofs-utils. Knows all data layouts; of compressed files where
/// their blocks lie.</para>
/// <para>Nothing on the device is trusted: every offset and count is checked or bounded, each directory is entered once, and what cannot be
/// read or makes no sense is named in the result instead of thrown.</para>
/// </remarks>
public static class ErofsFiles
{
    // Inodes and blocks of directories looked at: ten times what a large desktop has. Bounds time.
    private const int MaximumSteps = 4 << 20;

    // Characters of paths that are kept: a hundred times what the directories of a large desktop have. Bounds memory.
    private const int MaximumText = 32 << 20;

    // Linux takes no longer path. Bounds the depth of directories, which in a damaged file system may contain themselves.
    private const int MaximumPath = 4096;

    /// <summary>Searches the whole tree.</summary>
    /// <param name="device">A device that holds the file system from its first byte on.</param>
    /// <param name="ranges">The ranges; none overlaps another.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <returns>Null if the device holds no EROFS file system that can be read.</returns>
    /// <exception cref="OperationCanceledException">It was ended.</exception>
    public static async Task<ErofsSearch?> FindAsync(IBlockDevice device, IReadOnlyList<ByteRange> ranges, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentNullException.ThrowIfNull(ranges);
        var reader = await ErofsReader.TryOpenAsync(device, cancellationToken).ConfigureAwait(false);
        return reader is null ? null : await new Walk(reader, ranges).RunAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Reads one regular file that is stored plainly, as <c>nacre image build</c> stores all of them. Symbolic links are not followed.</summary>
    /// <param name="device">A device that holds the file system from its first byte on.</param>
    /// <param name="path">The file's path, with <c>/</c> between its parts.</param>
    /// <param name="maximum">Bytes that the file has at most.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <returns>Its content; null if there is no such file, or it can't be read this way.</returns>
    /// <exception cref="OperationCanceledException">It was ended.</exception>
    public static async Task<byte[]?> ReadAsync(IBlockDevice device, string path, int maximum, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentNullException.ThrowIfNull(path);
        if (await ErofsReader.TryOpenAsync(device, cancellationToken).ConfigureAwait(false) is not { } reader
            || await InodeAtAsync(reader, path, cancellationToken).ConfigureAwait(false) is not { } inode
            || !inode.TryLocateFile(reader, maximum, out var places))
        {
            return null;
        }

        using var content = new MemoryStream();
        foreach (var place in places)
        {
            var bytes = new byte[place.Length];
            if (!await reader.TryReadAsync(place.Offset, bytes, cancellationToken).ConfigureAwait(false))
            {
                return null;
            }

            content.Write(bytes);
        }

        return content.ToArray();
    }

    /// <summary>The names in one directory. Symbolic links are not followed.</summary>
    /// <param name="device">A device that holds the file system from its first byte on.</param>
    /// <param name="path">The directory's path, with <c>/</c> between its parts.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <returns>The names, in no order; null if there is no such directory, or it can't be read.</returns>
    /// <exception cref="OperationCanceledException">It was ended.</exception>
    public static async Task<IReadOnlyList<string>?> ListAsync(IBlockDevice device, string path, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentNullException.ThrowIfNull(path);
        return await ErofsReader.TryOpenAsync(device, cancellationToken).ConfigureAwait(false) is { } reader
            && await InodeAtAsync(reader, path, cancellationToken).ConfigureAwait(false) is { } inode
            && await EntriesAsync(reader, inode, cancellationToken).ConfigureAwait(false) is { } entries
            ? [.. entries.Select(entry => entry.Name)]
            : null;
    }

    /// <summary>The inode at a path; null if there is none, or it can't be read.</summary>
    private static async Task<ErofsInode?> InodeAtAsync(ErofsReader reader, string path, CancellationToken cancellationToken)
    {
        var node = reader.RootNode;
        ErofsInode? inode = null;
        foreach (var part in path.Split('/', StringSplitOptions.RemoveEmptyEntries).Prepend(""))
        {
            if (part.Length > 0)
            {
                var entries = await EntriesAsync(reader, inode!, cancellationToken).ConfigureAwait(false);
                if (entries?.FirstOrDefault(entry => entry.Name == part) is not { Name: not null } found)
                {
                    return null;
                }

                node = found.Node;
            }

            inode = reader.TryPositionOf(node, out var position) ? await ErofsInode.TryReadAsync(reader, position, cancellationToken).ConfigureAwait(false) : null;
            if (inode is null)
            {
                return null;
            }
        }

        return inode;
    }

    /// <summary>A directory's entries; null if it is none, or can't be read.</summary>
    private static async Task<List<ErofsEntry>?> EntriesAsync(ErofsReader reader, ErofsInode directory, CancellationToken cancellationToken)
    {
        if (!directory.TryLocateDirectory(reader, out var blocks))
        {
            return null;
        }

        var found = new List<ErofsEntry>();
        var block = new byte[reader.BlockSize];
        foreach (var place in blocks)
        {
            var untrustedBlock = block.AsMemory(0, (int)place.Length);
            if (!await reader.TryReadAsync(place.Offset, untrustedBlock, cancellationToken).ConfigureAwait(false)
                || !ErofsDirectory.TryRead(untrustedBlock.Span, out var entries))
            {
                return null;
            }

            found.AddRange(entries);
        }

        return found;
    }

    /// <summary>One search.</summary>
    private sealed class Walk(ErofsReader reader, IReadOnlyList<ByteRange> ranges)
    {
        private readonly List<string>[] _files = [.. ranges.Select(_ => new List<string>())];
        private readonly (ByteRange Range, int Number)[] _sorted = [.. ranges.Select((range, number) => (range, number)).OrderBy(pair => pair.range.Offset)];
        private readonly List<string> _unreadable = [];
        private readonly HashSet<ulong> _entered = [];
        private readonly Stack<(ulong Node, string Path)> _directories = new();
        private int _steps;
        private long _text;

        private bool IsExhausted => _steps >= MaximumSteps || _text >= MaximumText;

        public async Task<ErofsSearch> RunAsync(CancellationToken cancellationToken)
        {
            _directories.Push((reader.RootNode, "/"));
            while (!IsExhausted && _directories.TryPop(out var next))
            {
                if (!_entered.Add(next.Node))
                {
                    continue;
                }

                var inode = await InodeAsync(next.Node, next.Path, cancellationToken).ConfigureAwait(false);
                if (inode is null || !await ListAsync(inode, next.Path, cancellationToken).ConfigureAwait(false))
                {
                    NoteUnreadable(next.Path);
                }
            }

            return new ErofsSearch(_files, _unreadable, !IsExhausted);
        }

        /// <summary>Reads an inode and notes which ranges it and its content lie in; null if it can't be read.</summary>
        private async Task<ErofsInode?> InodeAsync(ulong node, string path, CancellationToken cancellationToken)
        {
            _steps++;
            if (!reader.TryPositionOf(node, out var position))
            {
                return null;
            }

            Note(new ByteRange(position, ErofsInode.CompactSize), path);
            var inode = await ErofsInode.TryReadAsync(reader, position, cancellationToken).ConfigureAwait(false);
            if (inode is null)
            {
                return null;
            }

            Note(inode.Metadata, path);
            await foreach (var place in inode.ContentAsync(reader, cancellationToken).ConfigureAwait(false))
            {
                if (place is { } known)
                {
                    Note(known, path);
                }
                else
                {
                    NoteUnreadable(path);
                }
            }

            return inode;
        }

        /// <summary>Notes the inodes of a directory's entries, and its directories to be entered; false if not all of it can be read.</summary>
        private async Task<bool> ListAsync(ErofsInode directory, string path, CancellationToken cancellationToken)
        {
            if (!directory.TryLocateDirectory(reader, out var blocks))
            {
                return false;
            }

            var isWhole = true;
            var block = new byte[reader.BlockSize];
            foreach (var place in blocks)
            {
                _steps++;
                if (IsExhausted)
                {
                    return true;
                }

                var untrustedBlock = block.AsMemory(0, (int)place.Length);
                isWhole &= await reader.TryReadAsync(place.Offset, untrustedBlock, cancellationToken).ConfigureAwait(false)
                    && await ListAsync(untrustedBlock, path, cancellationToken).ConfigureAwait(false);
            }

            return isWhole;
        }

        private async Task<bool> ListAsync(ReadOnlyMemory<byte> untrustedBlock, string path, CancellationToken cancellationToken)
        {
            var isWhole = ErofsDirectory.TryRead(untrustedBlock.Span, out var entries);
            foreach (var entry in entries)
            {
                if (IsExhausted)
                {
                    return true;
                }

                await EntryAsync(entry.Node, entry.Type, path + entry.Name, cancellationToken).ConfigureAwait(false);
            }

            return isWhole;
        }

        private async Task EntryAsync(ulong node, byte type, string path, CancellationToken cancellationToken)
        {
            if (type != ErofsDirectory.Folder)
            {
                if (await InodeAsync(node, path, cancellationToken).ConfigureAwait(false) is null)
                {
                    NoteUnreadable(path);
                }
            }
            else if (path.Length >= MaximumPath)
            {
                NoteUnreadable(path + "/");
            }
            else
            {
                _text += path.Length;
                _directories.Push((node, path + "/"));
            }
        }

        private void Note(ByteRange place, string path)
        {
            for (var i = FirstThatEndsBehind(place.Offset); i < _sorted.Length && _sorted[i].Range.Offset < place.End; i++)
            {
                var files = _files[_sorted[i].Number];
                if (files.Count == 0 || !ReferenceEquals(files[^1], path))
                {
                    _text += path.Length;
                    files.Add(path);
                }
            }
        }

        private void NoteUnreadable(string path)
        {
            if (_unreadable.Count == 0 || !ReferenceEquals(_unreadable[^1], path))
            {
                _text += path.Length;
                _unreadable.Add(path);
            }
        }

        private int FirstThatEndsBehind(long offset)
        {
            var (low, high) = (0, _sorted.Length);
            while (low < high)
            {
                var middle = (low + high) / 2;
                (low, high) = _sorted[middle].Range.End > offset ? (low, middle) : (middle + 1, high);
            }

            return low;
        }
    }
}
