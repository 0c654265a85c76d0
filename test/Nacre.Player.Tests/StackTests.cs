using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.HostChecks;
using Nacre.Player.Leases;
using Nacre.Player.LivePcs;
using Nacre.Player.Stacks;
using Nacre.Policies;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>Which corporate layers start, and what becomes of those that do not.</summary>
[Collection("NACRE_HOME")]
public sealed class StackTests : IDisposable
{
    private static readonly CorporateStack First = Stack(("debian", 1));
    private static readonly CorporateStack Second = Stack(("debian", 2), ("tools", 1));
    private static readonly DateTimeOffset At = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);

    private readonly Office office = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => office.Dispose();

    [Fact]
    public void A_stack_is_on_trial_until_it_was_healthy()
    {
        var state = new StackState();
        Assert.Equal(First, state.Choose(_ => true, First));
        state = state.Offer(First);
        Assert.Equal((First, null, First), (state.Trial, state.Good, state.Next));
        state = state.Healthy(First);
        Assert.Equal((null, First, First), (state.Trial, state.Good, state.Next));
        state = state.Offer(Second);
        Assert.Equal((Second, First), (state.Next, state.Good));
        Assert.Equal([new ReleaseName("debian", 2), new("tools", 1), new("debian", 1)], state.Needed);
        Assert.Equal((Second, (CorporateStack?)null), (state.Healthy(Second).Good, state.Healthy(Second).Trial));
        Assert.Equal(First, state.Offer(First).Next);
        Assert.Null(state.Offer(First).Trial);
    }

    [Fact]
    public void A_stack_that_fails_twice_is_set_aside_and_remembered_until_it_is_offered_again()
    {
        var state = new StackState { Good = First }.Offer(Second).Failed(Second);
        Assert.Equal((1, Second), (state.Failures, state.Next));
        Assert.Same(state, state.Offer(Second));
        state = state.Failed(Second);
        Assert.Equal(2, state.Failures);
        Assert.Equal(First, state.Fallback(Second, _ => true));
        state = state.PutAside(Second, First, "broken", At);
        Assert.Equal((First, null, 0), (state.Next, state.Trial, state.Failures));
        Assert.Equal("broken", state.FindSetAside(Second)!.Reason);
        Assert.Null(state.FindSetAside(First));
        Assert.Null(state.Offer(Second).FindSetAside(Second));
        Assert.NotNull(state.Healthy(First).FindSetAside(Second));
        Assert.Empty(state.Offer(Stack(("debian", 3))).Healthy(Stack(("debian", 3))).SetAside);
        Assert.Equal(0, new StackState { Good = First }.Failed(First).Failures);
    }

    [Fact]
    public void An_update_that_comes_while_a_stack_starts_stays_on_trial()
    {
        var third = Stack(("debian", 3));
        var state = new StackState { Good = First }.Offer(Second).Offer(third);
        Assert.Equal((third, Second), (state.Healthy(Second).Trial, state.Healthy(Second).Good));
        Assert.Equal((third, 0), (state.Failed(Second).Trial, state.Failed(Second).Failures));
        Assert.Equal(third, state.PutAside(Second, First, "x", At).Next);
    }

    [Fact]
    public void What_the_lease_does_not_cover_starts_neither_now_nor_as_what_is_gone_back_to()
    {
        var good = Stack(("debian", 1), ("tools", 1), ("editor", 4));
        var state = new StackState { Good = good };
        var offered = Stack(("debian", 2), ("tools", 3), ("new", 1));
        Assert.Equal(good, state.Choose(_ => true, offered));
        Assert.Equal(Stack(("debian", 1), ("tools", 3), ("editor", 4)), state.Choose(release => release.Image != "tools", offered));
        Assert.Equal(Stack(("debian", 1), ("tools", 1)), state.Choose(release => release.Image != "editor", offered));
        Assert.Equal(Stack(("debian", 2), ("tools", 1), ("editor", 4)), state.Choose(release => release.Image != "debian", offered));
        Assert.Equal(offered, new StackState().Choose(_ => true, offered));
        Assert.Equal(Stack(("debian", 1), ("editor", 4)), state.Fallback(Second, release => release.Image != "tools"));
        Assert.Null(state.Fallback(Second, release => release.Image != "debian"));
        Assert.Null(state.Fallback(Stack(("debian", 1), ("editor", 4)), release => release.Image != "tools"));
        Assert.Null(new StackState().Fallback(Second, _ => true));
    }

    [Fact]
    public async Task The_state_is_kept_whole_and_read_as_it_was()
    {
        var book = new StackBook(office.Folder, TimeProvider.System);
        Assert.Null(book.Read().Next);
        await book.ChangeAsync(state => (state with { Good = First }).Offer(Second).Failed(Second).Report("sealed"), Token);
        await book.ChangeAsync(state => state.PutAside(Second, First, "broken", At), Token);
        var read = new StackBook(office.Folder, TimeProvider.System).Read();
        Assert.Equal((First, "broken", At, "sealed"), (read.Good, read.FindSetAside(Second)!.Reason, read.FindSetAside(Second)!.At, Assert.Single(read.Reports)));
    }

    [Fact]
    public async Task Two_that_change_the_state_at_once_lose_nothing()
    {
        var books = Enumerable.Range(0, 4).Select(_ => new StackBook(office.Folder, TimeProvider.System)).ToList();
        await books[0].ChangeAsync(state => (state with { Good = First }).Offer(Second), Token);
        await Task.WhenAll(books.Select(book => Task.Run(async () =>
        {
            for (var turn = 0; turn < 25; turn++)
            {
                await book.ChangeAsync(state => state.Failed(Second), Token);
            }
        }, Token)));
        Assert.Equal(100, books[0].Read().Failures);
    }

    [Fact]
    public void What_a_report_and_the_checks_of_the_host_tell_is_what_the_policy_lets_go()
    {
        SendReport Of(ReportKind kind) => new(new string('1', 32), At, kind, First.Releases, "canary of the reason", "canary of the console");
        Policy With(TelemetryLevel level) => Policy.Of("organisation", PolicyDocument.Empty.With(Settings.Telemetry, level));
        bool Tells(ReportKind kind, TelemetryLevel level)
        {
            var reduced = ReportBox.Reduce(Of(kind), level);
            Assert.Equal((Of(kind).Id, kind, Of(kind).Stack), (reduced.Id, reduced.Kind, reduced.Stack)); // what roll-outs stop by
            var tells = reduced.Reason.Contains("canary", StringComparison.Ordinal);
            Assert.Equal(tells, reduced.Console.Contains("canary", StringComparison.Ordinal));
            return tells;
        }

        Assert.All(Enum.GetValues<TelemetryLevel>(), level =>
        {
            Assert.True(Tells(ReportKind.Started, level) && Tells(ReportKind.Trust, level));
            Assert.All([ReportKind.SetAside, ReportKind.Failed, ReportKind.Dependencies], kind => Assert.Equal(level >= TelemetryLevel.Health, Tells(kind, level)));
            Assert.Equal(level == TelemetryLevel.Usage, Tells(ReportKind.UserPackages, level));
        });

        HostCheckResult[] checks = [HostCheckResult.Failed("host.os", "canary", "mend it") with { Action = CheckAction.Warn }, HostCheckResult.Passed("host.firewall", "on")];
        Assert.Empty(LivePcSession.StatementsOf(checks, With(TelemetryLevel.Off)));
        Assert.Contains("canary", Assert.Single(LivePcSession.StatementsOf(checks, Policy.Factory)).Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_report_lies_on_the_disk_unreadable_and_opens_only_here()
    {
        DurableFile.Write(Path.Combine(office.Paths.State, "device.secret"), RandomNumberGenerator.GetBytes(32));
        using var deviceKey = Client.DeviceKey.Create();
        DurableFile.Write(Path.Combine(office.Paths.State, "device.key"), deviceKey.ExportPkcs8());
        DurableFile.WriteJson(
            Path.Combine(office.Paths.State, "device.json"), new DeviceRecord(new Uri("http://127.0.0.1:1"), "device-1", "ann", "o", null, deviceKey.PublicKey));
        using var identity = EnrolledIdentity.Open(office.Paths);
        var book = new StackBook(office.Folder, TimeProvider.System);
        var box = new ReportBox(identity, "office", book, () => Policy.Factory);
        var report = new SendReport(new string('1', 32), At, ReportKind.SetAside, First.Releases, "reason", "canary of the console");
        var kept = box.Seal(report);
        Assert.NotEqual(kept, box.Seal(report));
        await book.ChangeAsync(state => state.Report(kept), Token);
        Assert.DoesNotContain("canary", Encoding.UTF8.GetString(await File.ReadAllBytesAsync(Path.Combine(office.Folder.Root, "stacks.json"), Token)), StringComparison.Ordinal);
        Assert.Equal(("reason", "canary of the console"), (box.TryOpen(kept)!.Reason, box.TryOpen(kept)!.Console));
        Assert.Null(new ReportBox(identity, "other", book, () => Policy.Factory).TryOpen(kept));
        Assert.Null(box.TryOpen("AAAA"));
        Assert.Null(box.TryOpen("%"));

        // A server that can't be reached: it stays. Damaged: it goes.
        using var client = identity.Connect();
        Assert.False(await box.DeliverAsync(client, null, Token));
        Assert.Equal(kept, Assert.Single(book.Read().Reports));
        await book.ChangeAsync(state => state.Delivered(kept).Report("damaged"), Token);
        Assert.True(await box.DeliverAsync(client, null, Token));
        Assert.Empty(book.Read().Reports);
    }

    [Fact]
    public async Task A_release_is_used_only_as_what_it_was_published_as()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        organisation.Delegate("debian", "tools");
        organisation.Vouch(7, "debian");
        organisation.Vouch(1, "tools", manifest: version => TrustedOrganisation.Manifest(version, "tools", ImageKind.Application));
        await organisation.UpdateAsync("debian");
        var trusted = await organisation.UpdateAsync("tools");
        static string Sign(string image, int version, ImageKind kind) => TrustedOrganisation.Manifest(version, image, kind);
        LeaseClaims Claims(string image = "debian", params ReleaseName[] layers) => new("d", "u", "l", image, 1, null, 0, 0, null, [], null, layers, [new ReleaseName("debian", 7)]);
        ErrorKind Refusal(LeaseClaims claims, params string[] manifests) => Assert.Throws<NacreException>(() => OpenedLease.VerifyManifests(claims, manifests, trusted, [])).Kind;
        var (system, kept, layer) = (Sign("debian", 1, ImageKind.System), Sign("debian", 7, ImageKind.System), Sign("tools", 1, ImageKind.Application));
        Assert.Equal(3, OpenedLease.VerifyManifests(Claims(layers: new ReleaseName("tools", 1)), [system, kept, layer], trusted, []).Count);

        // An application layer named as the system, and a system named as a layer.
        Assert.Equal(ErrorCatalogue.ReleaseNotAuthentic, Refusal(Claims("tools"), layer));
        Assert.Equal(ErrorCatalogue.ReleaseNotAuthentic, Refusal(Claims("tools", new ReleaseName("debian", 1)), system));

        // A release that the lease does not name: another version, another image.
        Assert.Equal(ErrorCatalogue.ReleaseNotAuthentic, Refusal(Claims(), system, layer));
        Assert.Equal(ErrorCatalogue.ReleaseNotAuthentic, Refusal(Claims(), Sign("debian", 2, ImageKind.System)));

        // A layer twice, or on itself.
        Assert.Equal(ErrorCatalogue.LeaseNotAuthentic, Refusal(Claims("debian", new ReleaseName("tools", 1), new ReleaseName("tools", 2)), system));
        Assert.Equal(ErrorCatalogue.LeaseNotAuthentic, Refusal(Claims("debian", new ReleaseName("debian", 7)), system));
    }

    private static CorporateStack Stack(params (string Image, int Version)[] releases) => new(releases.Select(release => new ReleaseName(release.Image, release.Version)));
}
