using System.Text;
using Nacre.Contracts;
using Nacre.Player.Moments;
using Nacre.Policies;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>What a rejuvenation means for each layer, and what the guest's words mean.</summary>
public sealed class RejuvenationPlanTests
{
    private static readonly DateTimeOffset Now = new(2026, 11, 25, 12, 0, 0, TimeSpan.Zero);
    private static readonly Dictionary<string, long> Bytes = new() { ["applications"] = 10, ["settings"] = 20, ["data"] = 30 };

    private static readonly string[] BadLabels = ["", " x", "a\nb", new('é', 41), "20261125-120000"];
    private static readonly string[] BadPaths = ["", "x", "/a/../b", "/a\0", "/a\nb"];

    private static readonly Moment[] Known =
    [
        Taken(MomentKind.Schedule, TimeSpan.FromHours(9)), Taken(MomentKind.User, TimeSpan.FromHours(5)) with { Label = "good" }, Taken(MomentKind.Schedule, TimeSpan.FromHours(1)),
    ];

    [Theory]
    [InlineData(RejuvenationDepth.System, null, "kept kept kept")]
    [InlineData(RejuvenationDepth.Applications, null, "blank kept kept")]
    [InlineData(RejuvenationDepth.Applications, "good", "20261125-070000 kept kept")]
    [InlineData(RejuvenationDepth.Settings, null, "blank blank kept")]
    [InlineData(RejuvenationDepth.Settings, "20261125-030000", "20261125-030000 20261125-030000 kept")]
    [InlineData(RejuvenationDepth.Data, "good", "blank blank 20261125-070000")]
    [InlineData(RejuvenationDepth.Moment, "good", "20261125-070000 20261125-070000 20261125-070000")]
    public void Each_depth_puts_back_what_it_says(RejuvenationDepth depth, string? to, string expected)
    {
        var plan = Plan(new RejuvenationRequest(depth, to));
        Assert.Equal(expected, string.Join(' ', plan.Layers.Select(layer => layer.Moment ?? layer.Fate.ToString().ToLowerInvariant())));
        Assert.Equal(plan.Layers.Count(layer => layer.Fate != LayerFate.Kept), plan.Actions.Count);
        Assert.Equal(Bytes.Values, plan.Layers.Select(layer => layer.BytesNow));
    }

    [Fact]
    public void The_newest_moment_before_a_time_is_gone_back_to()
    {
        Assert.Equal("20261125-070000", Plan(new RejuvenationRequest(RejuvenationDepth.Moment, Before: Now.AddHours(-4))).Layers[0].Moment);
        Assert.Equal("20261125-030000", Plan(new RejuvenationRequest(RejuvenationDepth.Data, Before: Now.AddHours(-5))).Layers[2].Moment);
        Fails(ErrorCatalogue.NotFound, new RejuvenationRequest(RejuvenationDepth.Moment, Before: Now.AddDays(-1)));
    }

    [Fact]
    public void What_makes_no_sense_or_is_not_permitted_is_refused()
    {
        Fails(ErrorCatalogue.UsageInvalid, new RejuvenationRequest(RejuvenationDepth.Data));
        Fails(ErrorCatalogue.UsageInvalid, new RejuvenationRequest(RejuvenationDepth.Moment));
        Fails(ErrorCatalogue.UsageInvalid, new RejuvenationRequest(RejuvenationDepth.System, "good"));
        Fails(ErrorCatalogue.UsageInvalid, new RejuvenationRequest(RejuvenationDepth.Moment, "good", Now));
        Fails(ErrorCatalogue.NotFound, new RejuvenationRequest(RejuvenationDepth.Moment, "bad"));
        Fails(ErrorCatalogue.NotFound, new RejuvenationRequest(RejuvenationDepth.System, IsUndo: true));
        Fails(ErrorCatalogue.Forbidden, new RejuvenationRequest(RejuvenationDepth.Settings), May(UserRejuvenation.Applications));
        Fails(ErrorCatalogue.Forbidden, new RejuvenationRequest(RejuvenationDepth.System), May(UserRejuvenation.None));

        // The administrator is not the user.
        Assert.NotEmpty(RejuvenationPlan.Of(
            new RejuvenationRequest(RejuvenationDepth.Moment, "good", Order: "0123456789abcdef"), Known, Bytes, May(UserRejuvenation.None), Now).Actions);
        var ordered = Taken(MomentKind.Rejuvenation, TimeSpan.FromMinutes(1)) with { Actions = [new LayerAction("data", null)], Order = "0123456789abcdef" };
        Assert.Equal(ErrorCatalogue.Forbidden, Assert.Throws<NacreException>(() => RejuvenationPlan.Of(
            new RejuvenationRequest(RejuvenationDepth.System, IsUndo: true), [.. Known, ordered], Bytes, Policy.Factory, Now)).Kind);
    }

    [Fact]
    public void A_snapshots_name_says_what_was_put_into_it_and_nothing_else_is_taken_for_one()
    {
        MomentName[] names =
        [
            new("20261125-120000", MomentKind.User, [], null, "my name, with = and  spaces"),
            new("20261125-120000", MomentKind.Schedule, [], null, null),
            new("20261125-120000", MomentKind.Rejuvenation, [new("applications", null), new("settings", "20261124-120000"), new("data", "20261124-120000")], "0123456789abcdef", null),
            new("20261125-120000", MomentKind.Undo, [new("data", "20261124-120000")], null, null),
        ];
        foreach (var name in names)
        {
            var read = MomentName.TryParse(name.ToString())!;
            Assert.Equal((name.Id, name.Kind, name.Order, name.Label), (read.Id, read.Kind, read.Order, read.Label));
            Assert.Equal(name.Actions, read.Actions);
            Assert.InRange(Encoding.UTF8.GetByteCount(name.ToString()), 1, 128);
        }

        Assert.InRange(new MomentName("20261125-120000", MomentKind.Schedule, [], null, new string('x', MomentName.LongestLabel)).ToString().Length, 1, 128);
        string[] others =
        [
            "", "moment", "before rollback 2026", "moment 2026 user -", "moment 20261125-120000 nobody -", "moment 20261125-120000 User -", "moment 20261125-120000 undo x=blank",
            "moment 20261125-120000 undo d=", "moment 20261125-120000 undo d=../x", "moment 20261325-120000 user -", "done 20261125-120000",
        ];
        Assert.All(others, other => Assert.Null(MomentName.TryParse(other)));
        Assert.Equal("20261125-120000", MomentName.DoneId(MomentName.DoneName("20261125-120000")));
        Assert.All(BadLabels, label => Assert.Equal(ErrorCatalogue.NameInvalid, Assert.Throws<NacreException>(() => MomentName.ParseLabel(label)).Kind));
    }

    [Fact]
    public void What_the_guest_says_of_two_states_becomes_a_list_of_changes()
    {
        static string Record(string path, string kind, int size, string time, string owner = "644 1000 1000", string target = "") => $"{path}\u0001{kind}\u0001{size}\u0001{time}\u0001{owner}\u0001{target}";
        string[] records =
        [
            Record("home/user/gone", "f", 5, "1.0"), Record("home/user/grown", "f", 5, "1.0"), "\u0002" + Record("home/user/grown", "f", 6, "2.0"),
            Record("home/user/touched", "f", 5, "1.0"), "\u0002" + Record("home/user/touched", "f", 5, "2.0"), "\u0002" + Record("home/user/new", "f", 9, "2.0"),
            Record("usr/local/hidden", "f", 5, "1.0"), "\u0002" + Record("usr/local/hidden", "c", 0, "2.0"), "\u0002nonsense",
            Record("home/user/mode", "f", 5, "1.0"), "\u0002" + Record("home/user/mode", "f", 5, "1.0", "755 1000 1000"),
        ];
        var output = Encoding.UTF8.GetBytes(string.Concat(records.Select(record => record + '\0')));
        var (changes, touched, isCut) = MomentViews.ReadChanges(output, "data");
        Assert.False(isCut);
        Assert.Equal("home/user/touched", Assert.Single(touched));
        Assert.Equal(
            [
                new("/home/user/gone", "data", FileChange.Removed, 5), new("/home/user/grown", "data", FileChange.Changed, 6), new("/home/user/mode", "data", FileChange.Changed, 5),
                new("/home/user/new", "data", FileChange.Added, 9), new("/home/user/touched", "data", FileChange.Changed, 5), new("/usr/local/hidden", "data", FileChange.Removed, 0),
            ],
            changes.OrderBy(change => change.Path, StringComparer.Ordinal));
        Assert.True(MomentViews.ReadChanges(output[..^4], "data").IsCut);
        Assert.Equal("/home/user/x", MomentViews.Normal("//home/./user/x/"));
        Assert.All(BadPaths, path => Assert.Throws<NacreException>(() => MomentViews.Normal(path)));
    }

    private static Moment Taken(MomentKind kind, TimeSpan ago) => new(MomentName.IdOf(Now - ago), kind, Now - ago, null, Bytes, [], null);

    private static Policy May(UserRejuvenation allowed) => Policy.Of("test", PolicyDocument.Empty.With(Settings.RejuvenateUserAllowed, allowed));

    private static RejuvenationPlan Plan(RejuvenationRequest request) => RejuvenationPlan.Of(request, Known, Bytes, Policy.Factory, Now);

    private static void Fails(ErrorKind kind, RejuvenationRequest request, Policy? policy = null) =>
        Assert.Equal(kind, Assert.Throws<NacreException>(() => RejuvenationPlan.Of(request, Known, Bytes, policy ?? Policy.Factory, Now)).Kind);
}
