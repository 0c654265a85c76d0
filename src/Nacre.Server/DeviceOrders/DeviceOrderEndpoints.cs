using System.Security.Claims;
using System.Text;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>An endpoint that a revoked device may use: it has orders to fetch, and nothing else.</summary>
internal sealed record LetsRevokedIn;

internal static class DeviceOrderEndpoints
{
    /// <summary>After so long a device connects again: with a fresh token, and perhaps to another server.</summary>
    private static readonly TimeSpan LongestConnection = TimeSpan.FromHours(12);

    private static readonly byte[] Beat = ":\n\n"u8.ToArray(), Orders = Encoding.ASCII.GetBytes($"event: {DeviceEvents.Orders}\ndata:\n\n");

    public static void Map(Groups groups)
    {
        var administrator = groups.Administrator;
        var reader = groups.Of(Roles.Administrator, Roles.HelpDesk, Roles.Auditor);
        administrator.MapPost("/kills", async (OrderKill body, DeviceOrders orders, CancellationToken cancellationToken) =>
                (await orders.KillAsync(body, cancellationToken)).ToHttp(made => TypedResults.Json(made, statusCode: StatusCodes.Status201Created)))
            .WithName("OrderKill").WithSummary("Orders devices to destroy the keys of a LivePC, or all of theirs; all of it or nothing.")
            .Produces<DeviceOrder[]>(StatusCodes.Status201Created).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotFound, ErrorCatalogue.AlreadyExists);
        reader.MapGet("/device-orders", (DeviceOrders orders, CancellationToken cancellationToken) => orders.ListAsync(cancellationToken))
            .WithName("ListDeviceOrders").WithSummary("All revokes, kills and logs that were asked for, and where they are, newest first.");
        reader.MapGet("/device-orders/{id}", async (string id, DeviceOrders orders, CancellationToken cancellationToken) => (await orders.GetAsync(id, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("GetDeviceOrder").WithSummary("A revoke, a kill or a log that was asked for, with its receipt.").Produces<DeviceOrder>().Fails(ErrorCatalogue.NotFound);
        administrator.MapPost("/device-orders/{id}/approve", async (string id, DeviceOrders orders, CancellationToken cancellationToken) => (await orders.ApproveAsync(id, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("ApproveDeviceOrder").WithSummary("Approves a kill that another administrator ordered.").Produces<DeviceOrder>().Fails(ErrorCatalogue.NotFound, ErrorCatalogue.Immutable);
        administrator.MapPost("/device-orders/{id}/withdraw", async (string id, DeviceOrders orders, CancellationToken cancellationToken) => (await orders.WithdrawAsync(id, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("WithdrawDeviceOrder").WithSummary("Takes an order back that the device was not given.").Produces<DeviceOrder>().Fails(ErrorCatalogue.NotFound, ErrorCatalogue.Immutable);
        administrator.MapPost("/device-orders/{id}/lift", async (string id, DeviceOrders orders, CancellationToken cancellationToken) => (await orders.LiftAsync(id, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("LiftDeviceOrder").WithSummary("Gives a revoked device its permission back, or lets one have a new LivePC in the place of a killed one.").Produces<DeviceOrder>().Fails(ErrorCatalogue.NotFound, ErrorCatalogue.Immutable);
        var helper = groups.Of(Roles.Administrator, Roles.HelpDesk);
        helper.MapPost("/devices/{id}/log", async (string id, OrderLog body, DeviceOrders orders, CancellationToken cancellationToken) =>
                (await orders.OrderLogAsync(id, body, cancellationToken)).ToHttp(made => TypedResults.Json(made, statusCode: StatusCodes.Status201Created)))
            .WithName("OrderLog").WithSummary("Asks a device for its log; its user is told who asks, and why.")
            .Produces<DeviceOrder>(StatusCodes.Status201Created).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotFound, ErrorCatalogue.AlreadyExists);
        helper.MapGet("/device-orders/{id}/log", async (string id, DeviceOrders orders, CancellationToken cancellationToken) => (await orders.ReadLogAsync(id, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("GetLog").WithSummary("The log that a device sent; the audit log says who read it.").Produces<DeviceLog>().Fails(ErrorCatalogue.NotFound);
        helper.MapDelete("/device-orders/{id}/log", async (string id, DeviceOrders orders, CancellationToken cancellationToken) => (await orders.DeleteLogAsync(id, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("DeleteLog").WithSummary("Deletes the log that a device sent, or takes the order back that it was not given.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.NotFound);
        groups.Device.MapPut("/orders/{id}/log", async (string id, SendLog body, ClaimsPrincipal device, DeviceOrders orders, CancellationToken cancellationToken) =>
                (await orders.TakeLogAsync(Id(device), id, body, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("SendLog").WithSummary("The device's log, which an order asked for.").WithMetadata(new BodyLimit(SendLog.LongestBody))
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotFound, ErrorCatalogue.Immutable);
        groups.Public.MapPost("/device-orders/receipts", async (DeliverReceipt body, DeviceOrders orders, CancellationToken cancellationToken) =>
                (await orders.DeliverAsync(body, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("DeliverReceipt").WithSummary("Takes a device's receipt, which its signature vouches for.").WithMetadata(new BodyLimit(4 * DeliverReceipt.Longest))
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.ReceiptNotAuthentic);
        groups.Device.MapPost("/orders", async (FetchDeviceOrders body, ClaimsPrincipal device, DeviceOrders orders, CancellationToken cancellationToken) =>
                (await orders.FetchAsync(Id(device), body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("FetchDeviceOrders").WithSummary("What the device is ordered to carry out.").WithMetadata(new LetsRevokedIn())
            .Produces<SignedDeviceOrders>().Fails(ErrorCatalogue.RequestInvalid);
        groups.Device.MapGet("/events", ListenAsync).WithName("ListenForOrders").WithSummary("Stays open, and says at once when there are orders for the device (server-sent events).")
            .WithMetadata(new LetsRevokedIn()).Produces(StatusCodes.Status200OK, contentType: "text/event-stream");
    }

    private static async Task ListenAsync(HttpContext context, DeviceBell bell, IServiceScopeFactory scopes, IHostApplicationLifetime life)
    {
        var device = Id(context.User);
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted, life.ApplicationStopping);
        ending.CancelAfter(LongestConnection);
        using var listening = bell.Listen(device); // before the database is asked: what is queued in between rings
        context.Response.ContentType = "text/event-stream";
        context.Response.Headers["X-Accel-Buffering"] = "no"; // nginx passes each event on
        try
        {
            bool waiting;
            await using (var scope = scopes.CreateAsyncScope())
            {
                var database = scope.ServiceProvider.GetRequiredService<NacreDatabase>();
                waiting = await DeviceOrders.HasOpenAsync(database, device, ending.Token) || await Nacre.Server.Orders.HasWaitingAsync(database, device, ending.Token);
            }

            await SayAsync(context, waiting ? Orders : Beat, ending.Token);
            while (true)
            {
                using var beat = CancellationTokenSource.CreateLinkedTokenSource(ending.Token);
                beat.CancelAfter(DeviceEvents.Beat);
                bool isRung;
                try
                {
                    isRung = await listening.WaitAsync(beat.Token);
                    if (!isRung)
                    {
                        return; // there are newer connections of this device
                    }
                }
                catch (OperationCanceledException) when (!ending.IsCancellationRequested)
                {
                    isRung = false;
                }

                await SayAsync(context, isRung ? Orders : Beat, ending.Token);
            }
        }
        catch (OperationCanceledException) when (ending.IsCancellationRequested)
        {
            // The device left, the server stops, or it was long enough.
        }
    }

    private static async Task SayAsync(HttpContext context, byte[] what, CancellationToken cancellationToken)
    {
        await context.Response.Body.WriteAsync(what, cancellationToken);
        await context.Response.Body.FlushAsync(cancellationToken);
    }

    private static string Id(ClaimsPrincipal device) => device.FindFirstValue(ClaimTypes.NameIdentifier)!;
}
