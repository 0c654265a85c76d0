using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>The folder of the server's state and what is where in it. Only its owner may look inside.</summary>
internal sealed class DataDirectory
{
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    /// <param name="path">The folder.</param>
    /// <param name="keys">The folder of the key ring; null: <c>keys</c> in it.</param>
    /// <exception cref="NacreException">NoSpace, FileAccess: it can't be made.</exception>
    public DataDirectory(string path, string? keys = null)
    {
        Path = System.IO.Path.GetFullPath(path);
        Keys = keys is null ? System.IO.Path.Combine(Path, "keys") : System.IO.Path.GetFullPath(keys);
        try
        {
            Make(Path);
            Make(Keys);
            Make(Segments);
            if (!OperatingSystem.IsWindows())
            {
                File.SetUnixFileMode(Keys, OwnerOnly);
            }
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw exception is IOException io && Problems.IsDiskFull(io)
                ? new NacreException(ErrorCatalogue.NoSpace, $"can't make '{Path}': the disk is full", exception)
                : new NacreException(ErrorCatalogue.FileAccess, $"can't use '{Path}' as the data directory: {exception.Message}", exception);
        }
    }

    public string Path { get; }

    public string Database => System.IO.Path.Combine(Path, "nacre.db");

    public string Keys { get; }

    public string Segments => System.IO.Path.Combine(Path, "segments");

    public string AdministratorToken => System.IO.Path.Combine(Path, "admin-token");

    /// <summary>Whose certificates the server has, PEM: what <c>nacre login --ca</c> takes.</summary>
    public string Authorities => System.IO.Path.Combine(Path, "ca.pem");

    public string Lock => System.IO.Path.Combine(Path, "lock");

    private static void Make(string path)
    {
        if (OperatingSystem.IsWindows())
        {
            Directory.CreateDirectory(path);
        }
        else
        {
            Directory.CreateDirectory(path, OwnerOnly);
        }
    }
}
