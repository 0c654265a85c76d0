namespace Nacre.Testing;

/// <summary>A new folder under the temporary folder, removed with all that is in it when disposed.</summary>
/// <param name="parent">Where it is made; null: in the temporary folder.</param>
public sealed class TemporaryDirectory(string? parent = null) : IDisposable
{
    /// <summary>The folder's full path.</summary>
    public string Path { get; } = parent is null
        ? Directory.CreateTempSubdirectory("nacre-").FullName
        : Directory.CreateDirectory(System.IO.Path.Combine(parent, $"nacre-{Guid.NewGuid():N}")).FullName;

    /// <summary>A path inside the folder.</summary>
    public string this[string name] => System.IO.Path.Combine(Path, name);

    /// <summary>Removes the folder.</summary>
    public void Dispose() => Directory.Delete(Path, recursive: true);
}
