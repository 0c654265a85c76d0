using System.Diagnostics;
using System.Globalization;
using Nacre.Contracts;
using Nacre.Player.Moments;
using Nacre.Player.Stacks;
using Nacre.Policies;
using Nacre.Volumes;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>Moments of real volumes: whole or not at all, whatever interrupts them.</summary>
[Collection("NACRE_HOME")]
public sealed class MomentStoreTests : IDisposable
{
    private readonly Office office = new();
    private readonly SetTime time = new(new DateTimeOffset(2026, 11, 25, 12, 0, 0, TimeSpan.Zero));

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => office.Dispose();

    [Fact]
    public async Task A_moment_is_kept_found_looked_into_gone_back_to_and_given_up()
    {
        string id;
        await using (var layers = Open())
        {
            await layers.WriteAsync(1, 2, 3);
            var taken = layers.Moments.Take(MomentKind.User, "before the audit");
            id = taken.Id;
            Assert.Equal(("20261125-120000", MomentKind.User, "before the audit"), (taken.Id, taken.Kind, taken.Label));
            Assert.All(taken.Bytes.Values, bytes => Assert.Equal(4096, bytes));
            await layers.WriteAsync(4);

            // Two within one second have names of their own.
            Assert.Equal("20261125-120001", layers.Moments.Take(MomentKind.Schedule, null).Id);
        }

        await using (var layers = Open())
        {
            Assert.Equal([id, "20261125-120001"], layers.Moments.List().Select(moment => moment.Id));
            var found = layers.Moments.Find("before the audit");
            Assert.Equal(3, await LayersOfNumbers.ReadAsync(layers.Moments.Open(found, "data")));
            Assert.Equal(ErrorCatalogue.NotFound, Assert.Throws<NacreException>(() => layers.Moments.Find("20200101-000000")).Kind);
            await layers.Moments.RejuvenateAsync(MomentKind.Rejuvenation, [new LayerAction("settings", id), new LayerAction("data", id)], null);
            Assert.Equal("4 2 3", Words(await layers.ReadAsync()));
            layers.Moments.Delete(found);
            Assert.DoesNotContain(layers.Moments.List(), moment => moment.Id == id);
            Assert.Equal("4 2 3", Words(await layers.ReadAsync()));
        }
    }

    [Fact]
    public async Task Blank_layers_may_be_formatted_anew_and_an_undo_brings_everything_back_and_can_be_undone()
    {
        time.Now = TimeProvider.System.GetUtcNow(); // by the volumes' own clock a snapshot is as old as it is
        MomentStore.Layers.ToList().ForEach(office.Folder.SetInUse);
        await using var layers = Open();
        await layers.WriteAsync(7);
        var policy = Policy.Factory;
        RejuvenationPlan Plan(RejuvenationRequest request) => RejuvenationPlan.Of(request, layers.Moments.List(), layers.Moments.BytesNow, policy, time.Now);
        var first = await layers.Moments.RejuvenateAsync(MomentKind.Rejuvenation, Plan(new RejuvenationRequest(RejuvenationDepth.Settings)).Actions, null);
        Assert.Equal("0 0 7", Words(await layers.ReadAsync()));
        Assert.Equal([false, false, true], MomentStore.Layers.Select(office.Folder.IsInUse));
        Assert.Equal(0, layers.Moments.BytesNow["settings"]);

        // A guest formats them; the user works on.
        await layers.WriteAsync(8);
        time.Now += TimeSpan.FromDays(3);
        var undo = Plan(new RejuvenationRequest(RejuvenationDepth.System, IsUndo: true));
        Assert.Equal([LayerFate.Moment, LayerFate.Moment, LayerFate.Kept], undo.Layers.Select(layer => layer.Fate));
        Assert.All(undo.Actions, action => Assert.Equal(first.Id, action.To));
        await layers.Moments.RejuvenateAsync(MomentKind.Undo, undo.Actions, null);
        Assert.Equal("7 7 8", Words(await layers.ReadAsync()));
        Assert.All(MomentStore.Layers, layer => Assert.True(office.Folder.IsInUse(layer)));
        await layers.Moments.RejuvenateAsync(MomentKind.Undo, Plan(new RejuvenationRequest(RejuvenationDepth.System, IsUndo: true)).Actions, null);
        Assert.Equal("8 8 8", Words(await layers.ReadAsync()));

        time.Now += TimeSpan.FromDays(8);
        Assert.Equal(ErrorCatalogue.NotFound, Assert.Throws<NacreException>(() => Plan(new RejuvenationRequest(RejuvenationDepth.System, IsUndo: true))).Kind);
    }

    [Fact]
    public async Task Stopped_after_any_step_the_next_start_has_the_old_state_or_the_new_one()
    {
        var steps = 0;
        for (var stopAfter = 1; ; stopAfter++)
        {
            foreach (var layer in MomentStore.Layers.Where(layer => Directory.Exists(office.Folder.Volume(layer))))
            {
                Directory.Delete(office.Folder.Volume(layer), recursive: true);
            }

            var taken = 0;
            var isStopped = false;
            string target;
            await using (var layers = new LayersOfNumbers(office.Folder, time, _ =>
            {
                if (++taken > 3 + stopAfter)
                {
                    throw new OperationCanceledException();
                }
            }))
            {
                await layers.WriteAsync(1);
                target = layers.Moments.Take(MomentKind.User, null).Id;
                await layers.WriteAsync(2);
                try
                {
                    await layers.Moments.RejuvenateAsync(
                        MomentKind.Rejuvenation, [new LayerAction("applications", null), new LayerAction("settings", target), new LayerAction("data", target)], null);
                }
                catch (OperationCanceledException)
                {
                    isStopped = true;
                }
            }

            await using (var layers = Open())
            {
                layers.Moments.Repair();
                var finished = await layers.Moments.FinishAsync();
                var state = await layers.ReadAsync();
                var moments = layers.Moments.List();
                Assert.True(moments.Count == 1 ? state is [2, 2, 2] : state is [0, 1, 1], $"stopped after step {stopAfter}: {string.Join(' ', state)}, {moments.Count} moments");
                Assert.Equal(isStopped && moments.Count == 2 && taken < 13, finished is not null);

                // Once is enough.
                await layers.WriteAsync(5);
                layers.Moments.Repair();
                Assert.Null(await layers.Moments.FinishAsync());
                Assert.Equal("5 5 5", Words(await layers.ReadAsync()));
                Assert.All(layers.Volumes.Values, volume => Assert.Equal(
                    moments.Select(moment => moment.Id), volume.Snapshots.Select(snapshot => MomentName.TryParse(snapshot.Name)?.Id).OfType<string>()));
            }

            steps = taken;
            if (!isStopped)
            {
                break;
            }
        }

        Assert.Equal(3 + 3 + 1 + 6, steps);
    }

    [Fact]
    public Task A_player_that_is_killed_leaves_the_old_state_or_the_new_one() => KillAsync(12);

    [Fact]
    [Trait("lane", "long")]
    public Task A_player_that_is_killed_many_times_leaves_the_old_state_or_the_new_one() => KillAsync(400);

    [Fact]
    public async Task A_plan_can_not_be_put_before_a_player_a_second_time()
    {
        await using (var layers = Open())
        {
            await layers.WriteAsync(1);
            var before = await layers.Moments.RejuvenateAsync(MomentKind.Rejuvenation, [new LayerAction("data", null)], null);
            await layers.WriteAsync(2);
            Assert.NotNull(layers.Moments.Find(before.Id));
        }

        // Nothing beside the volumes says what to do: what a host could write or put back there is no plan.
        Assert.Equal(["lock", "volumes"], Directory.GetFileSystemEntries(office.Folder.Root).Select(Path.GetFileName).Append("lock").Distinct().Order());
        await using (var layers = Open())
        {
            layers.Moments.Repair();
            Assert.Null(await layers.Moments.FinishAsync());
            Assert.Equal("2 2 2", Words(await layers.ReadAsync()));
        }
    }

    [Fact]
    public async Task The_position_of_a_layer_grows_when_it_is_put_back_so_its_anchor_stays_true()
    {
        VolumeAnchor anchor;
        await using (var layers = Open())
        {
            await layers.WriteAsync(1);
            var moment = layers.Moments.Take(MomentKind.User, null);
            await layers.WriteAsync(2);
            anchor = layers.Volumes["data"].Anchor;
            await layers.Moments.RejuvenateAsync(MomentKind.Rejuvenation, [new LayerAction("data", moment.Id), new LayerAction("settings", null)], null);
            Assert.True(layers.Volumes["data"].Anchor.Position > anchor.Position);
            Assert.Equal(anchor.VolumeId, layers.Volumes["data"].Anchor.VolumeId);
            anchor = layers.Volumes["data"].Anchor;
        }

        await using var again = Volume.Open(office.Folder.Volume("data"), [.. Enumerable.Range(0, 32).Select(value => (byte)value)], new VolumeOptions { Anchor = anchor });
        Assert.Equal(1, await LayersOfNumbers.ReadAsync(again));
    }

    [Fact]
    public async Task Moments_are_given_up_as_the_policy_says_but_not_what_an_undo_needs()
    {
        time.Now = TimeProvider.System.GetUtcNow(); // by the volumes' own clock a snapshot is as old as it is
        await using var layers = Open();
        var policy = Policy.Of("test", PolicyDocument.Empty.With(Settings.SnapshotKeep, 3).With(Settings.SnapshotKeepDays, 10).With(Settings.RejuvenateUndoDays, 5));
        await layers.WriteAsync(1);
        layers.Moments.Take(MomentKind.User, "mine");
        await layers.Moments.RejuvenateAsync(MomentKind.Rejuvenation, [new LayerAction("settings", null)], null);
        for (var hour = 0; hour < 6; hour++)
        {
            time.Now += TimeSpan.FromHours(4);
            layers.Moments.Take(MomentKind.Schedule, null);
            layers.Moments.Retain(policy);
        }

        string Kinds() => string.Join(' ', layers.Moments.List().Select(moment => moment.Kind));
        Assert.Equal("User Rejuvenation Schedule Schedule", Kinds());
        time.Now += TimeSpan.FromDays(5);
        layers.Moments.Retain(policy);
        Assert.Equal("User Schedule Schedule", Kinds());
        time.Now += TimeSpan.FromDays(10);
        layers.Moments.Retain(policy);
        Assert.Empty(layers.Moments.List());
        Assert.All(layers.Volumes.Values, volume => Assert.Empty(volume.Snapshots));
    }

    [Fact]
    public async Task A_moment_that_can_not_be_whole_leaves_nothing()
    {
        await using var layers = Open();
        await layers.WriteAsync(1);
        layers.Volumes["data"].TakeSnapshot(new MomentName("20261125-120000", MomentKind.User, [], null, null).ToString());

        // Parts of a moment whose other layers were replaced are none, and its time is taken.
        Assert.Empty(layers.Moments.List());
        Assert.Equal("20261125-120001", layers.Moments.Take(MomentKind.User, null).Id);
        while (layers.Volumes["data"].Snapshots.Count < 4096)
        {
            layers.Volumes["data"].TakeSnapshot($"other {layers.Volumes["data"].Snapshots.Count}");
        }

        Assert.Equal(ErrorCatalogue.NoSpace, Assert.Throws<NacreException>(() => layers.Moments.Take(MomentKind.User, null)).Kind);
        Assert.Single(layers.Volumes["applications"].Snapshots);
        Assert.Single(layers.Volumes["settings"].Snapshots);
    }

    [Fact]
    public async Task A_whole_disk_has_moments_of_its_data_alone()
    {
        await using var data = Volume.Create(office.Folder.Volume("data"), new VolumeOptions { Size = 16 << 20 }, new byte[32]);
        var moments = new MomentStore(new Dictionary<string, Volume> { ["data"] = data }, office.Folder, time);
        await data.WriteAsync(0, new byte[] { 1, 2, 3 }, forceUnitAccess: false, Token);
        var clean = moments.Take(MomentKind.User, "clean");
        Assert.Equal(["data"], clean.Bytes.Keys);
        await data.TrimAsync(0, data.Size, Token);
        var before = await moments.RejuvenateAsync(MomentKind.Rejuvenation, [new LayerAction("data", clean.Id)], null);
        Assert.Equal(clean.Bytes, moments.BytesNow);
        moments.Delete(clean);
        Assert.Equal([before.Id], moments.List().Select(moment => moment.Id));
        time.Now += TimeSpan.FromDays(60);
        moments.Repair();
        moments.Retain(Policy.Factory);
        Assert.Empty(data.Snapshots);
    }

    [Fact]
    public async Task Where_the_policy_keeps_nothing_before_a_rejuvenation_its_moment_goes_once_it_is_carried_out_and_not_before()
    {
        time.Now = TimeProvider.System.GetUtcNow();
        var policy = Policy.Of("test", PolicyDocument.Empty.With(Settings.RejuvenateSnapshotBefore, false));
        await using (var layers = new LayersOfNumbers(office.Folder, time, step => _ = step == "decided" ? throw new OperationCanceledException() : 0))
        {
            await layers.WriteAsync(1);
            await Assert.ThrowsAsync<OperationCanceledException>(() => layers.Moments.RejuvenateAsync(MomentKind.Rejuvenation, [new LayerAction("settings", null)], null));
            layers.Moments.Retain(policy);
            Assert.Single(layers.Moments.List());
        }

        await using (var layers = Open())
        {
            var kept = layers.Moments.Take(MomentKind.User, "mine");
            Assert.NotNull(await layers.Moments.FinishAsync());
            layers.Moments.Retain(policy);
            Assert.Equal("1 0 1", Words(await layers.ReadAsync()));
            Assert.Equal([kept.Id], layers.Moments.List().Select(moment => moment.Id));
            Assert.All(layers.Volumes.Values, volume => Assert.Single(volume.Snapshots));
            await layers.Moments.BlankAsync("applications");
            Assert.Equal("0 0 1", Words(await layers.ReadAsync()));
            Assert.Equal(1, await LayersOfNumbers.ReadAsync(layers.Moments.Open(kept, "applications")));
        }
    }

    [Fact]
    public async Task That_no_moment_was_taken_for_days_is_told_from_the_last_one_or_the_first_start_on()
    {
        time.Now = TimeProvider.System.GetUtcNow();
        await using var layers = Open();
        var policy = Policy.Of("test", PolicyDocument.Empty.With(Settings.SnapshotWarnIfNoneDays, 3));
        Assert.Null(layers.Moments.FindOverdue(policy, null));
        Assert.Null(layers.Moments.FindOverdue(policy, time.Now.AddDays(-2)));
        Assert.Equal(time.Now.AddDays(-3), layers.Moments.FindOverdue(policy, time.Now.AddDays(-3)));
        var taken = layers.Moments.Take(MomentKind.User, null).Taken;
        Assert.Null(layers.Moments.FindOverdue(policy, time.Now.AddDays(-30)));
        time.Now += TimeSpan.FromDays(4);
        Assert.Equal(taken, layers.Moments.FindOverdue(policy, time.Now.AddDays(-30)));
        Assert.Null(layers.Moments.FindOverdue(Policy.Of("test", PolicyDocument.Empty.With(Settings.SnapshotWarnIfNoneDays, 0)), time.Now.AddDays(-30)));
    }

    [Fact]
    public async Task The_longest_names_fit_a_snapshot()
    {
        await using var layers = Open();
        await layers.WriteAsync(1);
        var stack = new CorporateStack(Enumerable.Range(1, 17).Select(number => new ReleaseName($"{new string('x', 60)}-{number:00}", 1000)));
        var label = MomentName.Shorten($"before {stack}");
        Assert.Equal(label, layers.Moments.Take(MomentKind.Rejuvenation, label).Label);
        var id = layers.Moments.List()[0].Id;
        var ordered = await layers.Moments.RejuvenateAsync(MomentKind.Rejuvenation, [.. MomentStore.Layers.Select(layer => new LayerAction(layer, id))], new string('a', 16));
        Assert.Equal(new string('a', 16), ordered.Order);
    }

    private static string Words(int[] state) => string.Join(' ', state);

    private LayersOfNumbers Open() => new(office.Folder, time);

    private async Task KillAsync(int rounds)
    {
        var seed = int.TryParse(Environment.GetEnvironmentVariable("NACRE_SEED"), CultureInfo.InvariantCulture, out var given) ? given : Random.Shared.Next();
        TestContext.Current.SendDiagnosticMessage("NACRE_SEED={0}", seed);
        var random = new Random(seed);
        var met = new Dictionary<string, int>();
        for (var round = 0; round < rounds; round++)
        {
            var start = new ProcessStartInfo(Environment.ProcessPath!) { RedirectStandardOutput = true, Environment = { [RestlessPlayer.Setting] = $"{random.Next()}", ["NACRE_HOME"] = office.Home } };
            using var child = Process.Start(start)!;
            var first = await child.StandardOutput.ReadLineAsync(Token);
            var rest = child.StandardOutput.ReadToEndAsync(Token);
            await Task.Delay(TimeSpan.FromMilliseconds(random.NextDouble() * 150), Token);
            child.Kill();
            await child.WaitForExitAsync(Token);
            var text = $"{first}\n{await rest}";
            var last = text[..text.LastIndexOf('\n')].Split('\n')[^1].Split(' ');
            met[last[0]] = met.GetValueOrDefault(last[0]) + 1;
            var (from, to) = (int.Parse(last[1], CultureInfo.InvariantCulture), int.Parse(last[2], CultureInfo.InvariantCulture));

            await using var layers = new LayersOfNumbers(office.Folder);
            layers.Moments.Repair();
            await layers.Moments.FinishAsync();
            var state = await layers.ReadAsync();
            Assert.All(state, value => Assert.True(value == from || value == to, $"round {round}: {string.Join(' ', last)}: {string.Join(' ', state)}"));
            Assert.True(last[0] == "write" || state.Distinct().Count() == 1, $"round {round}: between: {string.Join(' ', last)}: {string.Join(' ', state)}");
            var whole = layers.Moments.List();
            foreach (var (layer, volume) in layers.Volumes)
            {
                Assert.Equal(whole.Select(moment => moment.Id), volume.Snapshots.Select(snapshot => MomentName.TryParse(snapshot.Name)?.Id).OfType<string>());
                foreach (var moment in whole.Where(moment => moment.Label is not null))
                {
                    Assert.Equal(moment.Label, $"{await LayersOfNumbers.ReadAsync(layers.Moments.Open(moment, layer))}");
                }
            }
        }

        TestContext.Current.SendDiagnosticMessage("killed while it was about to: {0}", string.Join(", ", met.Select(pair => $"{pair.Key} {pair.Value}")));
    }
}
