using System.Security.Cryptography;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Leases;
using Nacre.Policies;
using Nacre.Volumes;
using Nacre.Volumes.Releases;

namespace Nacre.Player.Releases;

/// <summary>
/// All places that a LivePC's segments come from, asked in order: a folder that the user named, the origins of the lease, the server. One that fails is left
/// alone for a while, longer each time, and the next one is asked for what is still missing. Thread-safe.
/// </summary>
internal sealed class Delivery : ISegmentOrigin
{
    /// <summary>How often all places are asked before a read fails; only so often as said second where what they have is wrong.</summary>
    private const int MostRounds = 5, MostRoundsOfWrong = 3;
    private static readonly TimeSpan FirstPause = TimeSpan.FromMilliseconds(200), LongestRest = TimeSpan.FromMinutes(5);

    private readonly IReadOnlyList<Place> places;
    private readonly TimeProvider time;

    /// <summary>Creates one of places in their order.</summary>
    public Delivery(IEnumerable<ISegmentOrigin> origins, TimeProvider time)
    {
        places = [.. origins.Select(origin => new Place(origin))];
        this.time = time;
    }

    /// <summary>The places that a lease names, and the server.</summary>
    /// <param name="lease">The lease.</param>
    /// <param name="client">The server.</param>
    /// <param name="folder">A folder that is asked before all; null: none.</param>
    /// <param name="time">The clock.</param>
    public static Delivery Of(OpenedLease lease, NacreClient client, string? folder, TimeProvider time)
    {
        var throttle = new Throttle(lease.Policy.Get(Settings.UpdateBandwidthKbps) * 125, time);
        var origins = new List<ISegmentOrigin>();
        if (folder is not null)
        {
            origins.Add(new FolderOrigin(folder));
        }

        foreach (var url in (lease.Claims.Origins ?? []).Take(StoreOrigins.Most))
        {
            if (StoreOrigins.TryReadUrl(url, out var address))
            {
                origins.Add(HttpOrigin.Named(address, client.Server, throttle, time, HttpOrigin.Patience));
            }
        }

        origins.Add(HttpOrigin.Server(client.Server, client.Trust, throttle, time, HttpOrigin.Patience));
        return new Delivery(origins, time);
    }

    /// <inheritdoc/>
    public async ValueTask ReadAsync(SegmentRange range, CancellationToken cancellationToken)
    {
        var failures = new Dictionary<Place, VolumeException>();
        for (var round = 1; ; round++)
        {
            foreach (var place in Askable(round))
            {
                range.GoBack();
                try
                {
                    await place.Origin.ReadAsync(range, cancellationToken).ConfigureAwait(false);
                    place.Succeeded();
                    return;
                }
                catch (VolumeException failure)
                {
                    failures[place] = failure;
                    place.Failed(failure, time.GetTimestamp(), time);
                }
            }

            var isWrong = failures.Values.All(failure => failure.Kind != VolumeErrorKind.Io);
            if (round >= (isWrong && failures.Count > 0 ? MostRoundsOfWrong : MostRounds))
            {
                throw Sum(failures);
            }

            // 0.2, 0.4, 0.8, 1.6 s, each less up to a half of it, so that devices that lost a place together do not return together.
            var pause = FirstPause * Math.Pow(2, round - 1) * (1 - (RandomNumberGenerator.GetInt32(500) / 1000.0));
            var asked = places.Min(place => place.AskedToWait(time));
            await Task.Delay(asked > pause ? asked : pause, time, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Those that did not ask to be left alone; at first without those that failed lately, where there are others.</summary>
    private List<Place> Askable(int round)
    {
        var all = places.Where(place => place.AskedToWait(time) == TimeSpan.Zero).ToList();
        var rested = round == 1 ? all.FindAll(place => place.Rest(time) == TimeSpan.Zero) : [];
        return rested.Count > 0 ? rested : all;
    }

    private VolumeException Sum(Dictionary<Place, VolumeException> failures)
    {
        if (failures.Count == 0)
        {
            const string Message = "every place that has the release asks to be left alone for now";
            return new VolumeException(VolumeErrorKind.Io, Message, new NacreException(ErrorCatalogue.ServerUnreachable, Message));
        }

        // A place that can't be reached now may be right later, so waiting for it may help: that is what counts, then the last one's failure, which is the server's.
        var counts = places.Where(failures.ContainsKey).Select(place => failures[place]).ToList();
        var last = counts.LastOrDefault(failure => failure.Kind == VolumeErrorKind.Io) ?? counts[^1];
        return counts.Count == 1 ? last : new VolumeException(last.Kind, string.Join("; ", counts.Select(failure => failure.Message)), last.InnerException);
    }

    /// <summary>One of the places, and for how long it is left alone.</summary>
    private sealed class Place(ISegmentOrigin origin)
    {
        private readonly Lock gate = new();
        private int failures;
        private long since;
        private TimeSpan rest, asked;

        public ISegmentOrigin Origin => origin;

        public void Succeeded()
        {
            lock (gate)
            {
                (failures, rest, asked) = (0, TimeSpan.Zero, TimeSpan.Zero);
            }
        }

        public void Failed(VolumeException failure, long now, TimeProvider time)
        {
            lock (gate)
            {
                // Several requests that one failure ends count once.
                if (failures == 0 || time.GetElapsedTime(since, now) >= rest)
                {
                    failures++;
                }

                since = now;
                asked = (origin as HttpOrigin)?.AskedToWait ?? TimeSpan.Zero;
                var own = FirstPause * Math.Pow(2, Math.Min(failures, 12));
                rest = failure.Kind == VolumeErrorKind.NotAuthentic || own > LongestRest ? LongestRest : own;
            }
        }

        public TimeSpan Rest(TimeProvider time) => Left(rest, time);

        public TimeSpan AskedToWait(TimeProvider time) => Left(asked, time);

        private TimeSpan Left(TimeSpan of, TimeProvider time)
        {
            lock (gate)
            {
                var left = of - time.GetElapsedTime(since);
                return left > TimeSpan.Zero ? left : TimeSpan.Zero;
            }
        }
    }
}
