namespace Nacre.Testing;

/// <summary>The folder that the tests were built from.</summary>
public static class Repository
{
    /// <summary>A path in it.</summary>
    public static string At(params string[] parts)
    {
        var root = new DirectoryInfo(AppContext.BaseDirectory);
        while (!File.Exists(Path.Combine(root.FullName, "Nacre.slnx")))
        {
            root = root.Parent ?? throw new InvalidOperationException("the tests do not run inside of the repository");
        }

        return Path.Combine([root.FullName, .. parts]);
    }
}
