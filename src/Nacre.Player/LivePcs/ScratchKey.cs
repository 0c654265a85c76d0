using System.Security.Cryptography;

namespace Nacre.Player.LivePcs;

/// <summary>The key of a running LivePC's scratch layer: random, new with each clean layer, in a file that only memory holds, for a player that
/// goes on after this one was killed. A loss of power takes it away, and with it what the layer's files say.</summary>
internal sealed class ScratchKey
{
    private const int Size = 32;

    private readonly string? file;

    /// <param name="memory">A folder of the user's own that only memory holds; null where the host has none.</param>
    /// <param name="name">The LivePC.</param>
    public ScratchKey(string? memory, string name) => file = memory is null ? null : Path.Combine(memory, $"{name}.scratch");

    /// <summary>A new key in the old one's place; where the host has no memory to keep it in, this process's memory is the only place.</summary>
    public byte[] Renew()
    {
        Forget();
        var key = RandomNumberGenerator.GetBytes(Size);
        if (file is not null)
        {
            try
            {
                using var stream = new FileStream(file, new FileStreamOptions
                {
                    Mode = FileMode.CreateNew,
                    Access = FileAccess.Write,
                    UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
                });
                stream.Write(key);
            }
            catch (IOException)
            {
                // No memory left to keep it in. The LivePC runs all the same; it only can't be gone on with.
                Forget();
            }
        }

        return key;
    }

    /// <summary>The kept key; null where there is none.</summary>
    public byte[]? TryRead()
    {
        try
        {
            return file is not null && File.ReadAllBytes(file) is { Length: Size } key ? key : null;
        }
        catch (IOException)
        {
            return null;
        }
    }

    /// <summary>Takes the key away: from here on nobody reads the layer again.</summary>
    public void Forget()
    {
        if (file is not null && File.Exists(file))
        {
            // The pages go back to the kernel with nothing in them.
            using (var stream = new FileStream(file, FileMode.Open, FileAccess.Write))
            {
                stream.Write(new byte[Size]);
            }

            File.Delete(file);
        }
    }
}
