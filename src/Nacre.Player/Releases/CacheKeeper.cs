using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Leases;
using Nacre.Player.LivePcs;
using Nacre.Player.Stacks;
using Nacre.Policies;

namespace Nacre.Player.Releases;

/// <summary>
/// Keeps the device's cache to the releases that its LivePCs keep, as the policy of each says. What a release needs is known from the manifests of the leases that are kept: those are
/// written under the same lock, before anything of the release is read or fetched.
/// </summary>
internal sealed class CacheKeeper(PlayerPaths paths, EnrolledIdentity identity, TimeProvider time)
{
    /// <summary>Removes what no LivePC keeps. Where it is not known what one of them needs, nothing is removed.</summary>
    /// <returns>How many segments and indexes went.</returns>
    /// <exception cref="NacreException">FileAccess, NoSpace.</exception>
    public async Task<int> CleanAsync(CancellationToken cancellationToken)
    {
        using (await DurableFile.LockAsync(paths.CacheLock, time, cancellationToken).ConfigureAwait(false))
        {
            return await FindNeededAsync(cancellationToken).ConfigureAwait(false) is { } needed ? Remove(paths.Segments, needed) + Remove(paths.Indexes, needed) : 0;
        }
    }

    /// <summary>The same where it can be done now; else the next contact of a LivePC that runs does it.</summary>
    public async Task TryCleanAsync(CancellationToken cancellationToken)
    {
        try
        {
            await CleanAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException)
        {
            // It costs space, and nothing else.
        }
    }

    /// <summary>The names of all segments and indexes that are needed; null: that is not known.</summary>
    private async Task<HashSet<string>?> FindNeededAsync(CancellationToken cancellationToken)
    {
        var needed = new HashSet<string>(StringComparer.Ordinal);
        foreach (var name in Directory.Exists(paths.LivePcs) ? Directory.GetDirectories(paths.LivePcs).Select(Path.GetFileName).OfType<string>().Where(Names.IsValid) : [])
        {
            var folder = new LivePcFolder(paths, name);
            using var machine = LeftOver.Find(folder);
            var running = machine is null ? [] : folder.Machine?.Stack.Releases;
            var grant = folder.Grant;
            if (running is null || (grant is null && (machine is not null || File.Exists(folder.GrantPath))))
            {
                return null;
            }

            if (grant is null)
            {
                continue;
            }

            try
            {
                var (claims, policy) = OpenedLease.ReadKept(grant, identity, folder.Name);
                var versions = policy.Get(Settings.UpdateKeepVersions);
                var state = await new StackBook(folder, time).ChangeAsync(now => now.Forget(versions), cancellationToken).ConfigureAwait(false);
                var keep = state.ToKeep(versions).Concat(running).Concat(claims.Layers ?? []).Append(new ReleaseName(claims.Image, claims.Version)).ToHashSet();
                var manifests = grant.Manifests.Select(OpenedLease.ReadManifest).DistinctBy(manifest => manifest.Name).ToDictionary(manifest => manifest.Name);

                // What the lease covers no more does not start again; but what runs reads on.
                if (running.Any(release => !manifests.ContainsKey(release)))
                {
                    return null;
                }

                needed.UnionWith(keep.Where(manifests.ContainsKey).Select(release => manifests[release]).SelectMany(manifest => manifest.Segments.Append(manifest.Index)).Select(segment => segment.Name));
            }
            catch (NacreException exception) when (exception.Kind == ErrorCatalogue.LeaseNotAuthentic || exception.Kind == ErrorCatalogue.ReleaseNotAuthentic || exception.Kind == ErrorCatalogue.Unsupported)
            {
                return null;
            }
        }

        return needed;
    }

    private static int Remove(string folder, HashSet<string> needed)
    {
        var left = (Directory.Exists(folder) ? Directory.GetFiles(folder) : []).Where(file => Names.IsSegmentName(Path.GetFileName(file)) && !needed.Contains(Path.GetFileName(file))).ToList();
        try
        {
            left.ForEach(File.Delete);
            return left.Count;
        }
        catch (IOException exception)
        {
            throw DurableFile.Translate(exception, folder);
        }
    }
}
