using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>The folder of the server's state and what is where in it. Only its owner may look inside.</summary>
internal sealed class DataDirectory
{
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    public DataDirectory(string path)
    {
        Path = System.IO.Path.GetFullPath(path);
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

    public string Keys => System.IO.Path.Combine(Path, "keys");

    public string Segments => System.IO.Path.Combine(Path, "segments");

    public string AdministratorToken => System.IO.Path.Combine(Path, "admin-token");

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
