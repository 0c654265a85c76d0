using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Devices;

namespace Nacre.Player.Orders;

/// <summary>Stays connected to the server, so that a revoke or kill is heard at once; while it can't, it asks less and less often, down to the policy's interval.</summary>
internal static class DeviceWatch
{
    private static readonly TimeSpan Stable = TimeSpan.FromMinutes(1), FirstPause = TimeSpan.FromSeconds(15);

    /// <summary>Runs until it is cancelled, or the device has no identity any more.</summary>
    /// <param name="paths">The player's folders.</param>
    /// <param name="attend">Carries out what is ordered.</param>
    /// <param name="interval">The longest pause between two attempts.</param>
    /// <param name="time">The clock.</param>
    /// <param name="problem">Told why it is not connected; null once it is.</param>
    /// <param name="connected">Given the client while it is connected, for other requests on the same connection; null after it.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public static async Task RunAsync(
        PlayerPaths paths, Func<CancellationToken, Task> attend, Func<TimeSpan> interval, TimeProvider time, Action<NacreException?> problem, Action<NacreClient?> connected,
        CancellationToken cancellationToken)
    {
        var pause = FirstPause;
        while (true)
        {
            var since = time.GetTimestamp();
            try
            {
                using var identity = EnrolledIdentity.Open(paths);
                using var client = identity.Connect(isLong: true);
                problem(null);
                try
                {
                    connected(client);
                    await client.ListenForOrdersAsync(attend, cancellationToken).ConfigureAwait(false);
                }
                finally
                {
                    connected(null);
                }
            }
            catch (NacreException exception) when (exception.Kind == ErrorCatalogue.NotEnrolled)
            {
                return;
            }
            catch (NacreException exception)
            {
                problem(exception);
            }

            if (cancellationToken.IsCancellationRequested)
            {
                return;
            }

            // Not all devices at once, when a server comes back.
            pause = time.GetElapsedTime(since) > Stable ? FirstPause : new[] { pause * 2, interval() }.Min();
            await Task.Delay(pause * (0.5 + (0.5 * Random.Shared.NextDouble())), time, cancellationToken).ConfigureAwait(false);
        }
    }
}
