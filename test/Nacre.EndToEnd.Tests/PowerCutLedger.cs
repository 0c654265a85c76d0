using System.Globalization;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>What a guest said to be durable, and what it found after the power had been cut; fails where they contradict each other.</summary>
/// <remarks>The guest's words: <c>testdata/tiny-guest/power-cuts.sh</c>.</remarks>
internal sealed class PowerCutLedger
{
    private readonly Dictionary<int, string> files;
    private readonly HashSet<string> gone;
    private readonly HashSet<int> leaving;
    private readonly HashSet<string> whole = [];
    private string[]? database;
    private bool isClean;

    public PowerCutLedger() => (files, gone, leaving) = ([], [], []);

    /// <summary>One that expects what <paramref name="other"/> does.</summary>
    public PowerCutLedger(PowerCutLedger other) =>
        (files, gone, leaving, Newest) = (new Dictionary<int, string>(other.files), [.. other.gone], [.. other.leaving], other.Newest);

    /// <summary>The newest transaction that must be there.</summary>
    public int Newest { get; private set; }

    /// <summary>Files that must be there, by number.</summary>
    public IReadOnlyCollection<int> Files => files.Keys;

    public bool IsChecked { get; private set; }

    public int AcknowledgedTransactions { get; private set; }

    public int AcknowledgedFiles { get; private set; }

    public int AcknowledgedRemovals { get; private set; }

    public int FoundFiles { get; private set; }

    /// <summary>File systems found clean, by who replayed the journal.</summary>
    public Dictionary<string, int> Clean { get; } = [];

    /// <summary>A guest starts that may remove these files.</summary>
    public void Begin(bool isFresh, IEnumerable<int> removing)
    {
        (isClean, database, IsChecked) = (isFresh, null, false);
        whole.Clear();
        leaving.UnionWith(removing);
    }

    /// <summary>A line of the guest's console.</summary>
    public void Read(string line)
    {
        var words = line.Split(' ');
        switch (words[0])
        {
            case "FAIL":
                Assert.Fail(line);
                break;
            case "FSCK":
                isClean = true;
                Clean[words[1]] = Clean.GetValueOrDefault(words[1]) + 1;
                break;
            case "DATABASE":
                database = words;
                break;
            case "WHOLE":
                whole.Add(words[1]);
                break;
            case "BROKEN":
                Assert.Fail($"the file {words[1]} is not whole");
                break;
            case "CHECKED":
                RequireKept();
                break;
            case "T":
                Assert.Equal(Newest + 1, Number(words[1]));
                Newest++;
                AcknowledgedTransactions++;
                break;
            case "F":
                files.Add(Number(words[1].Split('-')[0]), words[1]);
                AcknowledgedFiles++;
                break;
            case "D":
                // It may have been gone already: removed before the last cut, which came before that was acknowledged.
                if (files.Remove(Number(words[1]), out var removed))
                {
                    Assert.True(leaving.Remove(Number(words[1])), line);
                    gone.Add(removed);
                    AcknowledgedRemovals++;
                }

                break;
        }
    }

    private void RequireKept()
    {
        Assert.True(isClean, "the file system was not checked");
        Assert.NotNull(database);
        Assert.True(database is ["DATABASE", "ok", ..] && database.Length == 8, $"the database: {string.Join(' ', database)}");
        var (count, first, newest) = (Number(database[2]), Number(database[3]), Number(database[4]));
        Assert.True(newest >= Newest, $"transaction {Newest} had been committed; the newest in the database is {newest}");
        Assert.True(count == newest - first + 1 && first == Math.Max(1, newest - 299), $"{count} transactions from {first} to {newest}");
        Assert.True(Number(database[5]) == newest, $"of the newest transaction, {newest}, a part is missing: {database[5]}");
        Assert.True(database[6] == "0" && database[7] == "0", $"balance {database[6]}, {database[7]} wrong rows");

        foreach (var (number, name) in files)
        {
            Assert.True(whole.Contains(name) || leaving.Contains(number), $"the file {name} is lost");
        }

        Assert.DoesNotContain(whole, gone.Contains);
        foreach (var name in whole)
        {
            var number = Number(name.Split('-')[0]);
            Assert.True(!files.TryGetValue(number, out var known) || known == name, $"{name} has the number of {known}");
        }

        // What was found, or found to be gone, is durable, acknowledged or not.
        gone.UnionWith(files.Values.Where(name => !whole.Contains(name)));
        Newest = newest;
        FoundFiles += whole.Count;
        var stillLeaving = leaving.ToHashSet();
        files.Clear();
        foreach (var name in whole)
        {
            files.Add(Number(name.Split('-')[0]), name);
        }

        leaving.Clear();
        leaving.UnionWith(stillLeaving.Where(files.ContainsKey));
        IsChecked = true;
    }

    private static int Number(string text) => int.Parse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture);
}
