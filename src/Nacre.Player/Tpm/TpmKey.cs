using System.Buffers.Binary;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Nacre.Client;
using Nacre.Contracts;
using Base64Url = System.Buffers.Text.Base64Url;

namespace Nacre.Player.Tpm;

/// <summary>Where a device's key is in the TPM, kept in <c>device.tpm</c>.</summary>
/// <param name="Handle">The persistent handle, such as <c>0x81004e1f</c>.</param>
/// <param name="PublicKey">Its public half, by which another TPM's key under the same handle is told.</param>
internal sealed record TpmKeyRecord(string Handle, PublicKey PublicKey);

/// <summary>A P-256 key that was made in the TPM and can't leave it (fixedTPM, fixedParent, sensitiveDataOrigin). It signs what the device asks and agrees on keys; who may use the
/// TPM may use it, and nobody can copy it.</summary>
internal sealed class TpmKey : IHardwareKey
{
    /// <summary>The persistent handles among which one is taken: 256 in the owner's range (TCG, Registry of Reserved TPM 2.0 Handles).</summary>
    private const uint FirstHandle = 0x81004E00;

    /// <summary>fixedTPM, fixedParent and sensitiveDataOrigin (TPMA_OBJECT).</summary>
    private const uint NeverLeaves = (1 << 1) | (1 << 4) | (1 << 5);
    private const int Coordinate = 32;

    private volatile bool isHere;

    private TpmKey(TpmKeyRecord record) => Record = record;

    public TpmKeyRecord Record { get; }

    /// <inheritdoc/>
    public PublicKey PublicKey => Record.PublicKey;

    /// <summary>Makes a key in the TPM.</summary>
    /// <param name="folder">For files of a moment, all of them public or encrypted by the TPM.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="NacreException">FileAccess: there is no TPM, or it refuses.</exception>
    public static async Task<TpmKey> CreateAsync(string folder, CancellationToken cancellationToken)
    {
        var work = Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"tpm.{Environment.ProcessId}"));
        PlayerPaths.MakePrivate(work);
        try
        {
            string parent = Path.Combine(work, "parent"), secret = Path.Combine(work, "private"), open = Path.Combine(work, "public"), key = Path.Combine(work, "key");
            await StepAsync("tpm2_createprimary", ["-Q", "-C", "o", "-G", "ecc256", "-c", parent]).ConfigureAwait(false);
            await StepAsync(
                "tpm2_create", ["-Q", "-C", parent, "-G", "ecc256", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign|decrypt", "-u", open, "-r", secret]).ConfigureAwait(false);
            await StepAsync("tpm2_load", ["-Q", "-C", parent, "-u", open, "-r", secret, "-c", key]).ConfigureAwait(false);
            var handle = await FindFreeAsync(cancellationToken).ConfigureAwait(false);
            await StepAsync("tpm2_evictcontrol", ["-Q", "-C", "o", "-c", key, handle]).ConfigureAwait(false);
            return new TpmKey(new TpmKeyRecord(handle, await ReadPublicAsync(handle, work, cancellationToken).ConfigureAwait(false)));
        }
        finally
        {
            Directory.Delete(work, recursive: true);
        }

        // Without a resource manager in between, what a program loaded stays, and a TPM has room for three such things.
        async Task StepAsync(string program, IReadOnlyList<string> arguments)
        {
            await TpmTools.RunAsync(program, arguments, cancellationToken).ConfigureAwait(false);
            await TpmTools.RunAsync("tpm2_flushcontext", ["-t"], cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Opens the key that is there; whether this is its TPM shows at the first use.</summary>
    public static TpmKey Open(TpmKeyRecord record) => new(record);

    /// <inheritdoc/>
    public byte[] Sign(ReadOnlySpan<byte> digest)
    {
        // The program wants a file that it can seek in; what is signed is no secret.
        var file = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(file, digest);
            return Run("tpm2_sign", ["-Q", "-c", Record.Handle, "-g", "sha256", "-s", "ecdsa", "-d", "-f", "tss", "-o", "/dev/stdout", file], [], static answer =>
            {
                // TPMT_SIGNATURE: algorithm, hash, r and s.
                var at = 4;
                return [.. ReadNumber(answer, ref at), .. ReadNumber(answer, ref at)];
            });
        }
        finally
        {
            File.Delete(file);
        }
    }

    /// <inheritdoc/>
    public byte[] Agree(ECPoint other)
    {
        // TPM2B_ECC_POINT; the program wants a file that it can seek in.
        var point = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(point, [0, 2 * (Coordinate + 2), 0, Coordinate, .. Pad(other.X), 0, Coordinate, .. Pad(other.Y)]);
            return Run("tpm2_ecdhzgen", ["-Q", "-c", Record.Handle, "-u", point, "-o", "/dev/stdout"], [], static answer =>
            {
                var at = 2;
                return ReadNumber(answer, ref at);
            });
        }
        finally
        {
            File.Delete(point);
        }
    }

    private byte[] Run(string program, IReadOnlyList<string> arguments, byte[] input, Func<byte[], byte[]> read)
    {
        // Under the same handle another TPM may have a key of its own, which would sign as well.
        if (!isHere && !(isHere = IsHere()))
        {
            throw Elsewhere(null);
        }

        byte[] answer;
        try
        {
            answer = TpmTools.RunAsync(program, arguments, CancellationToken.None, input).GetAwaiter().GetResult();
        }
        catch (NacreException exception)
        {
            throw IsHere() ? exception : Elsewhere(exception);
        }

        try
        {
            return read(answer);
        }
        catch (Exception exception) when (exception is ArgumentException or IndexOutOfRangeException)
        {
            throw TpmTools.Failed(program, "its answer is not what it should be", exception);
        }
        finally
        {
            CryptographicOperations.ZeroMemory(answer);
        }
    }

    private static NacreException Elsewhere(Exception? cause) =>
        new(ErrorCatalogue.DeviceKeyElsewhere, "this device's key is in the TPM of another computer, or that TPM was cleared or is off: what was copied here does not open", cause);

    /// <summary>Whether this TPM has this key.</summary>
    private bool IsHere()
    {
        try
        {
            return ReadPublicAsync(Record.Handle, Path.GetTempPath(), CancellationToken.None).GetAwaiter().GetResult() == PublicKey;
        }
        catch (NacreException)
        {
            return false;
        }
    }

    private static async Task<string> FindFreeAsync(CancellationToken cancellationToken)
    {
        var taken = Encoding.ASCII.GetString(await TpmTools.RunAsync("tpm2_getcap", ["handles-persistent"], cancellationToken).ConfigureAwait(false));
        string handle;
        do
        {
            handle = string.Create(CultureInfo.InvariantCulture, $"0x{FirstHandle + (uint)RandomNumberGenerator.GetInt32(256):x8}");
        }
        while (taken.Contains(handle[2..], StringComparison.OrdinalIgnoreCase));
        return handle;
    }

    /// <summary>Reads TPM2B_PUBLIC, and refuses a key that could leave.</summary>
    private static async Task<PublicKey> ReadPublicAsync(string handle, string folder, CancellationToken cancellationToken)
    {
        var file = Path.Combine(folder, Path.GetRandomFileName());
        try
        {
            await TpmTools.RunAsync("tpm2_readpublic", ["-Q", "-c", handle, "-f", "tss", "-o", file], cancellationToken).ConfigureAwait(false);
            var content = await File.ReadAllBytesAsync(file, cancellationToken).ConfigureAwait(false);
            const int Attributes = 6, Point = 20;
            var at = Point;
            var key = new PublicKey("EC", "P-256", Base64Url.EncodeToString(ReadNumber(content, ref at)), Base64Url.EncodeToString(ReadNumber(content, ref at)));
            return (BinaryPrimitives.ReadUInt32BigEndian(content.AsSpan(Attributes)) & NeverLeaves) == NeverLeaves && PublicKeys.TryRead(key, out _)
                ? key : throw TpmTools.Failed("tpm2_readpublic", "the key is not one that stays in it", null);
        }
        catch (Exception exception) when (exception is ArgumentException or IOException)
        {
            throw TpmTools.Failed("tpm2_readpublic", "its answer is not what it should be", exception);
        }
        finally
        {
            File.Delete(file);
        }
    }

    /// <summary>A number after its length, as 32 bytes.</summary>
    private static byte[] ReadNumber(byte[] answer, ref int at)
    {
        var length = BinaryPrimitives.ReadUInt16BigEndian(answer.AsSpan(at, 2));
        var number = Pad(answer.AsSpan(at + 2, length).ToArray());
        at += 2 + length;
        return number;
    }

    private static byte[] Pad(byte[]? number) => number is { Length: <= Coordinate } ? [.. new byte[Coordinate - number.Length], .. number] : throw new ArgumentException("the number is too long");
}
