using Xunit;

namespace Nacre.Testing;

/// <summary>States what a test needs from the machine: skipped on a laptop that lacks it, failed where <c>CI</c> is set.</summary>
public static class Require
{
    /// <summary>The test needs <paramref name="program"/> on the PATH (or in an sbin folder); returns its full path.</summary>
    public static string Tool(string program)
    {
        var path = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Append("/usr/sbin").Append("/sbin")
            .Select(folder => Path.Combine(folder, program)).FirstOrDefault(File.Exists);
        if (path is not null)
        {
            return path;
        }

        var message = $"this test needs '{program}', which is not installed";
        if (Environment.GetEnvironmentVariable("CI") is "true" or "1")
        {
            Assert.Fail(message);
        }

        Assert.Skip(message);
        return "";
    }
}
