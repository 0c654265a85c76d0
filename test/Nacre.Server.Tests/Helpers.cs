using System.Net;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

namespace Nacre.Server.Tests;

/// <summary>A server that answers as a test wants.</summary>
internal sealed class HostilePeer : IAsyncDisposable
{
    private readonly WebApplication app;

    private HostilePeer(WebApplication app) => this.app = app;

    public Uri Url => new(app.Urls.Single());

    public static async Task<HostilePeer> StartAsync(RequestDelegate answer, X509Certificate2? certificate = null)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel => kestrel.Listen(IPAddress.Loopback, 0, listen =>
        {
            if (certificate is not null)
            {
                listen.UseHttps(certificate);
            }
        }));
        builder.Services.AddRouting();
        var app = builder.Build();
        app.Run(answer);
        await app.StartAsync();
        return new HostilePeer(app);
    }

    public ValueTask DisposeAsync() => app.DisposeAsync();
}
