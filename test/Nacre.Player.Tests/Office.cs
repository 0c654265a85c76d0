using Nacre.Player.LivePcs;
using Nacre.Testing;

namespace Nacre.Player.Tests;

/// <summary>A device's home with the folder of the LivePC <c>office</c>; gone when disposed. Its tests are in the collection NACRE_HOME.</summary>
internal sealed class Office : IDisposable
{
    private readonly TemporaryDirectory home = new();

    public Office()
    {
        Environment.SetEnvironmentVariable("NACRE_HOME", home.Path);
        Paths = PlayerPaths.Open();
        Folder = new LivePcFolder(Paths, "office");
        Folder.Create();
    }

    public string Home => home.Path;

    /// <summary>A path in the home.</summary>
    public string this[string name] => home[name];

    public PlayerPaths Paths { get; }

    public LivePcFolder Folder { get; }

    public void Dispose()
    {
        Directory.Delete(Folder.Sockets, recursive: true);
        home.Dispose();
    }
}
