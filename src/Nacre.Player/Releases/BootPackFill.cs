using Nacre.Contracts;
using Nacre.Player.Stacks;
using Nacre.Volumes;

namespace Nacre.Player.Releases;

/// <summary>Takes the boot packs of a stack into the cache while it starts. It only saves round trips: what it does not bring is fetched as it is read.</summary>
internal sealed class BootPackFill : IAsyncDisposable
{
    private readonly CancellationTokenSource stop;
    private readonly Task filling;

    private BootPackFill(CancellationTokenSource stop, Task filling) => (this.stop, this.filling) = (stop, filling);

    /// <summary>Begins; when this returns, the system's chunks are known to be on their way, so nobody asks for them twice.</summary>
    /// <param name="releases">What starts.</param>
    /// <param name="untrustedPacks">Where the packs are, as the server says.</param>
    /// <param name="ended">Told once: null where all packs came, else why not.</param>
    /// <param name="cancellationToken">Stops the beginning.</param>
    public static async Task<BootPackFill> BeginAsync(
        OpenReleases releases, IReadOnlyList<BootPack> untrustedPacks, Action<VolumeException?> ended, CancellationToken cancellationToken)
    {
        var stop = new CancellationTokenSource();
        try
        {
            var plan = await releases.FindPacksAsync(untrustedPacks, cancellationToken).ConfigureAwait(false);
            return new BootPackFill(stop, FillAsync(plan, ended, stop.Token));
        }
        catch (VolumeException exception)
        {
            ended(exception);
            return new BootPackFill(stop, Task.CompletedTask);
        }
        catch
        {
            stop.Dispose();
            throw;
        }
    }

    /// <summary>Ends when nothing more comes from the packs.</summary>
    public Task Done => filling;

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await stop.CancelAsync().ConfigureAwait(false);
        await filling.ConfigureAwait(false);
        stop.Dispose();
    }

    private static async Task FillAsync(IReadOnlyList<OpenReleases.FoundPack> plan, Action<VolumeException?> ended, CancellationToken cancellationToken)
    {
        try
        {
            // The system's first.
            foreach (var (reader, pack, copies) in plan)
            {
                await reader.FillAsync(
                    pack.Name, BootSet.TableSize(copies.Count), [.. copies.Select(copy => (copy.Segment, copy.Offset, copy.Length))], cancellationToken).ConfigureAwait(false);
            }

            if (plan.Count > 0)
            {
                ended(null);
            }
        }
        catch (VolumeException exception)
        {
            ended(exception);
        }
        catch (OperationCanceledException)
        {
            // The LivePC ends.
        }
    }
}
