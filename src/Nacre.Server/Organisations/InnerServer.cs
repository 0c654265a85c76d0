using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Http.Features.Authentication;

namespace Nacre.Server;

/// <summary>The server of an organisation that has no listener of its own: requests come from the server around it.</summary>
internal sealed class InnerServer : IServer
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    /// <summary>What is not the listener's, but was put there by the pipeline of the server around.</summary>
    private static readonly HashSet<Type> OfThePipeline =
        [typeof(IServiceProvidersFeature), typeof(IEndpointFeature), typeof(IRouteValuesFeature), typeof(IHttpAuthenticationFeature), typeof(IItemsFeature), typeof(IHttpActivityFeature)];

    private readonly Lock gate = new();
    private readonly HashSet<IHttpRequestLifetimeFeature> underWay = [];
    private readonly TaskCompletionSource idle = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Func<IFeatureCollection, Task>? process;
    private bool isStopping;

    public IFeatureCollection Features { get; } = new FeatureCollection();

    public InnerServer() => Features.Set<IServerAddressesFeature>(new ServerAddressesFeature());

    public Task StartAsync<TContext>(IHttpApplication<TContext> application, CancellationToken cancellationToken)
        where TContext : notnull
    {
        process = async features =>
        {
            var context = application.CreateContext(features);
            try
            {
                await application.ProcessRequestAsync(context);
                application.DisposeContext(context, null);
            }
            catch (Exception exception)
            {
                application.DisposeContext(context, exception);
                throw;
            }
        };
        return Task.CompletedTask;
    }

    /// <summary>Answers a request.</summary>
    /// <param name="outer">The request as the listener has it. What the organisation's pipeline sets lies over it and is seen by nobody else.</param>
    /// <returns>Null: it does not run, or is about to stop.</returns>
    public Task? ProcessAsync(IFeatureCollection outer)
    {
        var lifetime = outer.GetRequiredFeature<IHttpRequestLifetimeFeature>();
        lock (gate)
        {
            if (process is null || isStopping)
            {
                return null;
            }

            underWay.Add(lifetime);
        }

        return RunAsync(process, outer, lifetime);
    }

    /// <summary>Waits for the requests that are under way, and breaks those off that do not end.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        lock (gate)
        {
            isStopping = true;
            EndIfIdle();
        }

        try
        {
            await idle.Task.WaitAsync(Patience, cancellationToken);
        }
        catch (Exception exception) when (exception is TimeoutException or OperationCanceledException)
        {
            IHttpRequestLifetimeFeature[] left;
            lock (gate)
            {
                left = [.. underWay];
            }

            foreach (var one in left)
            {
                one.Abort();
            }

            await Task.WhenAny(idle.Task, Task.Delay(Patience, CancellationToken.None));
        }
    }

    public void Dispose()
    {
    }

    private async Task RunAsync(Func<IFeatureCollection, Task> run, IFeatureCollection outer, IHttpRequestLifetimeFeature lifetime)
    {
        try
        {
            var features = new FeatureCollection();
            foreach (var (type, feature) in outer)
            {
                if (!OfThePipeline.Contains(type))
                {
                    features[type] = feature;
                }
            }

            await run(features);
        }
        finally
        {
            lock (gate)
            {
                underWay.Remove(lifetime);
                EndIfIdle();
            }
        }
    }

    private void EndIfIdle()
    {
        if (isStopping && underWay.Count == 0)
        {
            idle.TrySetResult();
        }
    }
}
