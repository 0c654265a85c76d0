using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;
using NSec.Cryptography;

namespace Nacre.Server;

/// <summary>
/// Passwords as Argon2id hashes, with the parameters beside each (the PHC string format). Not more at once than there are processors: each takes
/// <see cref="MemoryKib"/>; and not more waiting than the server can work off soon.
/// </summary>
internal sealed class Passwords
{
    public const int Shortest = 12, Longest = 256;

    /// <summary>OWASP's least is 19 MiB with two passes.</summary>
    private const int MemoryKib = 64 * 1024, Passes = 2;

    private const int SaltLength = 16, HashLength = 32, LargestMemoryKib = 1024 * 1024, MostWaiting = 64;

    private readonly int memory, passes;
    private readonly string nobodys;

    /// <summary>Of the process: its organisations share the memory and the processors.</summary>
    private static readonly SemaphoreSlim Workers = new(Environment.ProcessorCount);
    private int waiting;

    public Passwords()
        : this(MemoryKib, Passes)
    {
    }

    internal Passwords(int memory, int passes) => (this.memory, this.passes, nobodys) = (memory, passes, Write(memory, passes, new byte[SaltLength], new byte[HashLength]));

    private static Failure Busy { get; } = new(ErrorCatalogue.TooManyTries, "the server verifies more passwords than it can now; try again in some seconds");

    /// <summary>Why a text can't be somebody's password; null: it can.</summary>
    public static Failure? Unfit(string? untrusted, string name) => untrusted is null || untrusted.EnumerateRunes().Count() is < Shortest or > Longest
        ? new Failure(ErrorCatalogue.PasswordUnfit, string.Create(CultureInfo.InvariantCulture, $"the password must have {Shortest} to {Longest} characters"))
        : untrusted.Contains(name, StringComparison.OrdinalIgnoreCase) ? new Failure(ErrorCatalogue.PasswordUnfit, "the password contains the name")
        : untrusted.Distinct().Count() < 4 ? new Failure(ErrorCatalogue.PasswordUnfit, "the password has fewer than four different characters") : null;

    public async Task<Result<string>> HashAsync(string password, CancellationToken cancellationToken)
    {
        var salt = RandomNumberGenerator.GetBytes(SaltLength);
        return await DeriveAsync(password, memory, passes, salt, cancellationToken) is { } hash ? Write(memory, passes, salt, hash) : Busy;
    }

    /// <summary>Whether it is the password; where there is none (null), as much work for nothing.</summary>
    public async Task<Result<bool>> VerifyAsync(string untrusted, string? stored, CancellationToken cancellationToken)
    {
        var (kib, times, salt, expected) = Read(stored ?? nobodys);
        return await DeriveAsync(untrusted.Length > Longest * 2 ? "" : untrusted, kib, times, salt, cancellationToken) is { } hash
            ? CryptographicOperations.FixedTimeEquals(hash, expected) && stored is not null : Busy;
    }

    /// <summary>Whether a hash was made with other parameters than new ones are.</summary>
    public bool IsOutdated(string stored) => Read(stored) is var (kib, times, _, _) && (kib, times) != (memory, passes);

    private static string Write(int kib, int times, byte[] salt, byte[] hash) =>
        string.Create(CultureInfo.InvariantCulture, $"$argon2id$v=19$m={kib},t={times},p=1${Convert.ToBase64String(salt).TrimEnd('=')}${Convert.ToBase64String(hash).TrimEnd('=')}");

    private static (int Memory, int Passes, byte[] Salt, byte[] Hash) Read(string stored)
    {
        if (stored.Split('$') is not ["", "argon2id", "v=19", var parameters, var salt, var hash] || parameters.Split(',') is not [['m', '=', .. var memoryText], ['t', '=', .. var passesText], "p=1"]
            || !int.TryParse(memoryText, NumberStyles.None, CultureInfo.InvariantCulture, out var kib) || kib is < 8 or > LargestMemoryKib || !int.TryParse(passesText, NumberStyles.None, CultureInfo.InvariantCulture, out var times) || times is < 1 or > 64)
        {
            throw new InvalidOperationException("the database has a password hash of an unknown form");
        }

        return (kib, times, Bytes(salt), Bytes(hash));

        static byte[] Bytes(string text) => Convert.FromBase64String(text.PadRight((text.Length + 3) / 4 * 4, '='));
    }

    /// <returns>Null: too many wait.</returns>
    private async Task<byte[]?> DeriveAsync(string password, int kib, int times, byte[] salt, CancellationToken cancellationToken)
    {
        if (Interlocked.Increment(ref waiting) > MostWaiting)
        {
            Interlocked.Decrement(ref waiting);
            return null;
        }

        var bytes = Encoding.UTF8.GetBytes(password);
        try
        {
            await Workers.WaitAsync(cancellationToken);
            try
            {
                var algorithm = PasswordBasedKeyDerivationAlgorithm.Argon2id(new Argon2Parameters { DegreeOfParallelism = 1, MemorySize = kib, NumberOfPasses = times });
                return await Task.Run(() => algorithm.DeriveBytes(bytes, salt, HashLength), cancellationToken);
            }
            finally
            {
                Workers.Release();
            }
        }
        finally
        {
            Interlocked.Decrement(ref waiting);
            CryptographicOperations.ZeroMemory(bytes);
        }
    }
}
