namespace Nacre.Volumes;

/// <summary>A range that cannot be read.</summary>
/// <param name="Snapshot">In which snapshot, or null for the volume's present content.</param>
/// <param name="Offset">First byte.</param>
/// <param name="Length">Bytes, a multiple of <see cref="IBlockDevice.BlockSize"/>.</param>
/// <param name="Cause">What is wrong, with file and slot.</param>
public sealed record VolumeDamage(string? Snapshot, long Offset, long Length, VolumeException Cause);

/// <summary>What <see cref="Volume.Verify"/> found.</summary>
/// <param name="VerifiedBytes">Bytes of content that were read and are authentic; what several snapshots share is counted once.</param>
/// <param name="Damages">What is not, in the order of snapshots and offsets. A range that snapshots share is named for the newest state only.</param>
/// <param name="LogDamages">Damage that opening with <see cref="VolumeOptions.Tolerant"/> went past: what it hides cannot be named by range.</param>
public sealed record VolumeVerification(long VerifiedBytes, IReadOnlyList<VolumeDamage> Damages, IReadOnlyList<VolumeException> LogDamages);

/// <content>Verification.</content>
public sealed partial class Volume
{
    /// <summary>Reads and authenticates every block that the volume and its snapshots hold. Reads and writes go on meanwhile, cleaning
    /// between the pages of the map.</summary>
    /// <param name="progress">Told the bytes dealt with.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public VolumeVerification Verify(IProgress<VolumeProgress>? progress, CancellationToken cancellationToken)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        long total;
        SnapshotState[] snapshots;
        lock (_maintaining)
        {
            total = SegmentUsage.Of(MapsNow()).TotalLiveSlots() * BlockSize;
            snapshots = [.. _log.Snapshots];
        }

        var work = new Verification { Total = total };
        foreach (var snapshot in snapshots.Prepend(null))
        {
            var pages = (snapshot?.Map ?? _log.Map).PageCount;
            for (var page = 0; page < pages; page++)
            {
                cancellationToken.ThrowIfCancellationRequested();
                lock (_maintaining)
                {
                    if (snapshot is null || _log.Snapshots.Contains(snapshot))
                    {
                        VerifyPage(snapshot, page, work);
                    }
                }

                progress?.Report(new VolumeProgress(Math.Min(work.Done, total), total));
            }
        }

        progress?.Report(new VolumeProgress(total, total));
        return new VolumeVerification(work.Verified, work.Damages, [.. _log.Damages]);
    }

    private void VerifyPage(SnapshotState? snapshot, int index, Verification work)
    {
        if ((snapshot?.Map ?? _log.Map).Page(index) is not { } page || page.Visit.Pass == work)
        {
            return;
        }

        page.Visit = new PageVisit(work, index);
        for (var at = 0; at < BlockMap.PageEntries; at++)
        {
            var block = ((uint)index * BlockMap.PageEntries) + (uint)at;
            var entry = Volatile.Read(ref page.At(block));
            if (entry == 0 || !work.IsNew(entry))
            {
                continue;
            }

            work.Done += BlockSize;
            try
            {
                _log.SegmentOf(entry).ReadSlot(BlockMap.OrdinalOf(entry), block, work.Slot);
                work.Verified += BlockSize;
            }
            catch (VolumeException e)
            {
                work.Add(new VolumeDamage(snapshot?.Info.Name, (long)block * BlockSize, BlockSize, e));
            }
        }
    }

    private sealed class Verification
    {
        private readonly Dictionary<uint, ulong[]> _seen = [];

        public byte[] Slot { get; } = new byte[Segment.SlotSize];

        public long Total { get; init; }

        public long Done { get; set; }

        public long Verified { get; set; }

        public List<VolumeDamage> Damages { get; } = [];

        /// <summary>False for a slot that another page led to before.</summary>
        public bool IsNew(uint entry)
        {
            var index = BlockMap.SegmentIndexOf(entry);
            if (!_seen.TryGetValue(index, out var words))
            {
                _seen.Add(index, words = new ulong[Segment.MaximumSlots / 64]);
            }

            var ordinal = BlockMap.OrdinalOf(entry);
            var bit = 1UL << (ordinal % 64);
            var isNew = (words[ordinal / 64] & bit) == 0;
            words[ordinal / 64] |= bit;
            return isNew;
        }

        public void Add(VolumeDamage damage)
        {
            if (Damages.Count > 0 && Damages[^1] is var last && last.Snapshot == damage.Snapshot && last.Offset + last.Length == damage.Offset
                && last.Cause.Kind == damage.Cause.Kind)
            {
                Damages[^1] = last with { Length = last.Length + damage.Length };
                return;
            }

            Damages.Add(damage);
        }
    }
}
