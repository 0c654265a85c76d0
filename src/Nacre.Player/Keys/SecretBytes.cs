using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace Nacre.Player.Keys;

/// <summary>A secret in memory of its own: locked, so that it is not swapped (where the system lets this user lock a page), left out of core dumps, and overwritten with
/// zeroes when disposed. Not thread-safe.</summary>
public sealed unsafe partial class SecretBytes : IDisposable
{
    private const int DoNotDump = 16, Dump = 17; // madvise(2)
    private readonly nuint pages;
    private byte* memory;

    /// <param name="length">Bytes; zeroes at first.</param>
    public SecretBytes(int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        Length = length;
        var page = (nuint)Environment.SystemPageSize;
        pages = Math.Max(1, ((nuint)length + page - 1) / page) * page;
        memory = (byte*)NativeMemory.AlignedAlloc(pages, page);
        new Span<byte>(memory, (int)pages).Clear();
        if (OperatingSystem.IsLinux())
        {
            IsLocked = Lock(memory, pages) == 0;
            _ = Advise(memory, pages, DoNotDump);
        }
    }

    /// <summary>Bytes.</summary>
    public int Length { get; }

    /// <summary>Whether it is kept from being swapped.</summary>
    public bool IsLocked { get; }

    /// <summary>The secret, until it is disposed.</summary>
    public Span<byte> Span => memory is null ? throw new ObjectDisposedException(nameof(SecretBytes)) : new(memory, Length);

    /// <summary>Takes a copy, and overwrites what was copied.</summary>
    public static SecretBytes Take(Span<byte> source)
    {
        var taken = new SecretBytes(source.Length);
        source.CopyTo(taken.Span);
        CryptographicOperations.ZeroMemory(source);
        return taken;
    }

    /// <summary>Another copy.</summary>
    public SecretBytes Copy()
    {
        var copy = new SecretBytes(Length);
        Span.CopyTo(copy.Span);
        return copy;
    }

    /// <summary>Nothing of it.</summary>
    public override string ToString() => "***";

    /// <inheritdoc/>
    public void Dispose()
    {
        if (memory is not null)
        {
            CryptographicOperations.ZeroMemory(new Span<byte>(memory, (int)pages));
            if (OperatingSystem.IsLinux())
            {
                _ = Unlock(memory, pages);
                _ = Advise(memory, pages, Dump);
            }

            NativeMemory.AlignedFree(memory);
            memory = null;
        }
    }

    /// <summary>No core dump of this process: keys are in other places of its memory too (the ciphers' own), and in what it has read.</summary>
    public static void ForbidDumps()
    {
        const int CoreSize = 4; // setrlimit(2)
        if (OperatingSystem.IsLinux())
        {
            var none = default(ResourceLimit);
            _ = SetLimit(CoreSize, &none);
        }
    }

    private struct ResourceLimit
    {
        public nuint Now;
        public nuint Most;
    }

    [LibraryImport("libc", EntryPoint = "mlock")]
    private static partial int Lock(byte* address, nuint length);

    [LibraryImport("libc", EntryPoint = "munlock")]
    private static partial int Unlock(byte* address, nuint length);

    [LibraryImport("libc", EntryPoint = "madvise")]
    private static partial int Advise(byte* address, nuint length, int advice);

    [LibraryImport("libc", EntryPoint = "setrlimit")]
    private static partial int SetLimit(int resource, ResourceLimit* limit);
}
