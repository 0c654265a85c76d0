using System.Globalization;
using Nacre.Contracts;

namespace Nacre.Client;

/// <summary>
/// The server's API, a method for each endpoint. Thread-safe. Every failure is a <see cref="NacreException"/> with the catalogue's kind;
/// reading is tried three times, writing once.
/// </summary>
public sealed partial class NacreClient : IDisposable
{
    private readonly Transport transport;
    private readonly TimeProvider time;

    /// <summary>Makes a client; nothing is sent yet.</summary>
    /// <param name="server">The server's address, http or https.</param>
    /// <param name="credential">Who asks; null: nobody.</param>
    /// <param name="time">The clock for tokens and pauses; null: the computer's.</param>
    /// <param name="timeout">How long one try may take; null: 100 seconds.</param>
    /// <param name="trust">Whose certificates are believed; null: those that this computer trusts.</param>
    /// <param name="isLong">Whether it is for one connection that stays open and carries several requests at once (HTTP/2, where TLS agrees on it).</param>
    /// <exception cref="NacreException"><see cref="ErrorCatalogue.UsageInvalid"/>: the address is not one.</exception>
    public NacreClient(Uri server, Credential? credential = null, TimeProvider? time = null, TimeSpan? timeout = null, ServerTrust? trust = null, bool isLong = false)
    {
        this.time = time ?? TimeProvider.System;
        transport = new Transport(server, credential ?? Credential.None, this.time, timeout ?? TimeSpan.FromSeconds(100), trust ?? ServerTrust.System, isLong);
    }

    /// <summary>The server's address.</summary>
    public Uri Server => transport.Server;

    /// <summary>Whose certificates are believed.</summary>
    public ServerTrust Trust => transport.Trust;

    /// <summary>What the server says about itself.</summary>
    public Task<ServerInfo> GetServerAsync(CancellationToken cancellationToken = default) => transport.GetAsync<ServerInfo>("v1/server", cancellationToken);

    /// <summary>Enrols this device and checks that the answer is from one who knows the code.</summary>
    /// <exception cref="NacreException">Among others <see cref="ErrorCatalogue.ServerNotAuthentic"/>: nothing of the answer may be trusted.</exception>
    /// <param name="code">The code.</param>
    /// <param name="deviceName">What people call the device.</param>
    /// <param name="key">The device's key.</param>
    /// <param name="tlsKey">The key with which it will show itself in TLS; null: none.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public async Task<EnrolledDevice> EnrolAsync(EnrolmentCode code, string deviceName, DeviceKey key, PublicKey? tlsKey = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(code);
        ArgumentNullException.ThrowIfNull(key);
        var request = new EnrolDevice(code.Id, deviceName, key.PublicKey, "", tlsKey);
        request = request with { Proof = code.Prove("request", request.Parts) };
        var answer = await transport.SendAsync<EnrolledDevice>(HttpMethod.Post, "v1/devices", request, cancellationToken).ConfigureAwait(false);
        if (answer is not { DeviceId: not null, User: not null, Organisation: not null, Root: not null, LeaseKey: { X: not null, Y: not null } }
            || !code.Verify(answer.Proof, "answer", answer.PartsFor(request.Proof))
            || !PublicKeys.TryRead(answer.LeaseKey, out _))
        {
            throw new NacreException(ErrorCatalogue.ServerNotAuthentic, $"what answers at {Server} did not prove that it knows the enrolment code");
        }

        // Whoever is in between could only pass that on; from here on he would be refused, so he is named now.
        return transport.Trust.ProblemOfLast(ServerTrust.Of(answer.Authorities), time) is { } problem
            ? throw new NacreException(ErrorCatalogue.ServerNotAuthentic, $"the organisation's server answered, but what is in between at {Server} is not it: {problem}")
            : answer;
    }

    /// <summary>Creates a user.</summary>
    public Task<User> CreateUserAsync(CreateUser user, CancellationToken cancellationToken = default) =>
        transport.SendAsync<User>(HttpMethod.Post, "v1/users", user, cancellationToken);

    /// <summary>All users.</summary>
    public Task<IReadOnlyList<User>> ListUsersAsync(CancellationToken cancellationToken = default) => transport.GetAsync<IReadOnlyList<User>>("v1/users", cancellationToken);

    /// <summary>Makes a one-time code with which a device of a user enrols.</summary>
    public Task<CreatedEnrolmentCode> CreateEnrolmentCodeAsync(CreateEnrolmentCode code, CancellationToken cancellationToken = default) =>
        transport.SendAsync<CreatedEnrolmentCode>(HttpMethod.Post, "v1/enrolment-codes", code, cancellationToken);

    /// <summary>All devices.</summary>
    public Task<IReadOnlyList<Device>> ListDevicesAsync(CancellationToken cancellationToken = default) => transport.GetAsync<IReadOnlyList<Device>>("v1/devices", cancellationToken);

    /// <summary>One device.</summary>
    public Task<Device> GetDeviceAsync(string id, CancellationToken cancellationToken = default) => transport.GetAsync<Device>($"v1/devices/{Escape(id)}", cancellationToken);

    /// <summary>Lets a device in that waits for approval.</summary>
    public Task<Device> ApproveDeviceAsync(string id, CancellationToken cancellationToken = default) =>
        transport.SendAsync<Device>(HttpMethod.Post, $"v1/devices/{Escape(id)}/approve", null, cancellationToken);

    /// <summary>Turns a device away that waits for approval.</summary>
    public Task<Device> RejectDeviceAsync(string id, CancellationToken cancellationToken = default) =>
        transport.SendAsync<Device>(HttpMethod.Post, $"v1/devices/{Escape(id)}/reject", null, cancellationToken);

    /// <summary>Has this device's next key for TLS certified. Nothing of the answer is verified here.</summary>
    public Task<DeviceCertificate> RenewCertificateAsync(PublicKey tlsKey, CancellationToken cancellationToken = default) =>
        transport.SendAsync<DeviceCertificate>(HttpMethod.Post, "v1/device/certificate", new RenewCertificate(tlsKey), cancellationToken);

    /// <summary>Takes a device's permission away.</summary>
    public Task<Device> RevokeDeviceAsync(string id, CancellationToken cancellationToken = default) =>
        transport.SendAsync<Device>(HttpMethod.Post, $"v1/devices/{Escape(id)}/revoke", null, cancellationToken);

    /// <summary>Registers the organisation's release signing key.</summary>
    public Task<PublicKey> PutSigningKeyAsync(PublicKey key, CancellationToken cancellationToken = default) =>
        transport.SendAsync<PublicKey>(HttpMethod.Put, "v1/signing-key", key, cancellationToken);

    /// <summary>The organisation's release signing key; null where none is registered yet.</summary>
    public async Task<PublicKey?> FindSigningKeyAsync(CancellationToken cancellationToken = default)
    {
        try
        {
            return await transport.GetAsync<PublicKey>("v1/signing-key", cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.NotFound)
        {
            return null;
        }
    }

    /// <summary>Which of these segments the store lacks.</summary>
    public async Task<IReadOnlyList<string>> FindMissingSegmentsAsync(IReadOnlyList<string> names, CancellationToken cancellationToken = default) =>
        (await transport.SendAsync<MissingSegments>(HttpMethod.Post, "v1/segments/missing", new FindMissingSegments(names), cancellationToken).ConfigureAwait(false)).Names;

    /// <summary>Publishes a release.</summary>
    public Task<Release> PublishReleaseAsync(string image, PublishRelease release, CancellationToken cancellationToken = default) =>
        transport.SendAsync<Release>(HttpMethod.Post, $"v1/images/{Escape(image)}/releases", release, cancellationToken);

    /// <summary>All golden images.</summary>
    public Task<IReadOnlyList<Image>> ListImagesAsync(CancellationToken cancellationToken = default) => transport.GetAsync<IReadOnlyList<Image>>("v1/images", cancellationToken);

    /// <summary>An image's releases.</summary>
    public Task<IReadOnlyList<Release>> ListReleasesAsync(string image, CancellationToken cancellationToken = default) =>
        transport.GetAsync<IReadOnlyList<Release>>($"v1/images/{Escape(image)}/releases", cancellationToken);

    /// <summary>One release.</summary>
    public Task<Release> GetReleaseAsync(string image, int version, CancellationToken cancellationToken = default) =>
        transport.GetAsync<Release>(string.Create(CultureInfo.InvariantCulture, $"v1/images/{Escape(image)}/releases/{version}"), cancellationToken);

    /// <summary>Points a channel at a release.</summary>
    public Task<Image> MoveChannelAsync(string image, string channel, int version, CancellationToken cancellationToken = default) =>
        transport.SendAsync<Image>(HttpMethod.Put, $"v1/images/{Escape(image)}/channels/{Escape(channel)}", new MoveChannel(version), cancellationToken);

    /// <summary>Begins a roll-out.</summary>
    public Task<Rollout> StartRolloutAsync(string image, string channel, StartRollout rollout, CancellationToken cancellationToken = default) =>
        transport.SendAsync<Rollout>(HttpMethod.Post, $"v1/images/{Escape(image)}/channels/{Escape(channel)}/rollout", rollout, cancellationToken);

    /// <summary>Pauses, resumes, advances or withdraws a roll-out.</summary>
    public Task<Rollout> ChangeRolloutAsync(string image, string channel, RolloutAction action, CancellationToken cancellationToken = default) =>
        transport.SendAsync<Rollout>(HttpMethod.Patch, $"v1/images/{Escape(image)}/channels/{Escape(channel)}/rollout", new ChangeRollout(action), cancellationToken);

    /// <summary>The roll-outs that are under way.</summary>
    public Task<IReadOnlyList<Rollout>> ListRolloutsAsync(CancellationToken cancellationToken = default) => transport.GetAsync<IReadOnlyList<Rollout>>("v1/rollouts", cancellationToken);

    /// <summary>Which releases really started on which devices.</summary>
    public Task<IReadOnlyList<DeviceStart>> ListStartsAsync(string livePc, CancellationToken cancellationToken = default) =>
        transport.GetAsync<IReadOnlyList<DeviceStart>>($"v1/starts?livePc={Escape(livePc)}", cancellationToken);

    /// <summary>Says how many of an image's newest releases are kept.</summary>
    /// <param name="image">The image.</param>
    /// <param name="keep">How many; null: all.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public Task<Image> SetRetentionAsync(string image, int? keep, CancellationToken cancellationToken = default) =>
        transport.SendAsync<Image>(HttpMethod.Put, $"v1/images/{Escape(image)}/retention", new ImageRetention(keep), cancellationToken);

    /// <summary>Where devices may fetch segments besides the server.</summary>
    public Task<StoreOrigins> GetOriginsAsync(CancellationToken cancellationToken = default) => transport.GetAsync<StoreOrigins>("v1/origins", cancellationToken);

    /// <summary>Sets where devices may fetch segments besides the server.</summary>
    public Task<StoreOrigins> PutOriginsAsync(StoreOrigins origins, CancellationToken cancellationToken = default) =>
        transport.SendAsync<StoreOrigins>(HttpMethod.Put, "v1/origins", origins, cancellationToken);

    /// <summary>Removes what nobody needs from the store, or says what would go.</summary>
    public Task<StoreCleaned> CleanStoreAsync(bool dryRun, CancellationToken cancellationToken = default) =>
        transport.SendAsync<StoreCleaned>(HttpMethod.Post, "v1/store/clean", new CleanStore(dryRun), cancellationToken);

    /// <summary>Has the server read and verify one part of the store.</summary>
    /// <param name="part">0 to 255.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public Task<StoreCheck> CheckStoreAsync(int part, CancellationToken cancellationToken = default) =>
        transport.SendAsync<StoreCheck>(HttpMethod.Post, string.Create(CultureInfo.InvariantCulture, $"v1/store/check/{part}"), null, cancellationToken);

    /// <summary>Makes the token of the organisation's replicas; an earlier one is void.</summary>
    public Task<CreatedReplicaToken> CreateReplicaTokenAsync(CancellationToken cancellationToken = default) =>
        transport.SendAsync<CreatedReplicaToken>(HttpMethod.Post, "v1/replica-token", null, cancellationToken);

    /// <summary>What there is to mirror. Nothing of it is verified here.</summary>
    public Task<ReplicaPlan> GetReplicaPlanAsync(CancellationToken cancellationToken = default) => transport.GetAsync<ReplicaPlan>("v1/replica/releases", cancellationToken);

    /// <summary>Keeps the signed report of a release's checks.</summary>
    public Task PutReportAsync(string image, int version, PutReport report, CancellationToken cancellationToken = default) =>
        transport.SendAsync(HttpMethod.Put, ReleasePath(image, version, "report"), report, cancellationToken);

    /// <summary>A release's report and decisions, and what it lacks. The report's signature is not verified here.</summary>
    public Task<ReleaseStanding> GetStandingAsync(string image, int version, CancellationToken cancellationToken = default) =>
        transport.GetAsync<ReleaseStanding>(ReleasePath(image, version, "standing"), cancellationToken);

    /// <summary>What is installed in a release.</summary>
    /// <param name="image">The image.</param>
    /// <param name="version">The release.</param>
    /// <param name="format"><c>spdx</c> or <c>cyclonedx</c>.</param>
    /// <param name="cancellationToken">Stops.</param>
    public Task<SoftwareList> GetSoftwareListAsync(string image, int version, string format, CancellationToken cancellationToken = default) =>
        transport.GetAsync<SoftwareList>(ReleasePath(image, version, $"sbom/{Escape(format)}"), cancellationToken);

    /// <summary>Approves or rejects a release.</summary>
    public Task DecideReleaseAsync(string image, int version, DecideRelease decision, CancellationToken cancellationToken = default) =>
        transport.SendAsync(HttpMethod.Put, ReleasePath(image, version, "decision"), decision, cancellationToken);

    /// <summary>What a release must have before a channel can point at it.</summary>
    public Task<ReleasePolicy> GetReleasePolicyAsync(CancellationToken cancellationToken = default) => transport.GetAsync<ReleasePolicy>("v1/release-policy", cancellationToken);

    /// <summary>Sets what a release must have before a channel can point at it; only the first administrator may.</summary>
    public Task<ReleasePolicy> PutReleasePolicyAsync(ReleasePolicy policy, CancellationToken cancellationToken = default) =>
        transport.SendAsync<ReleasePolicy>(HttpMethod.Put, "v1/release-policy", policy, cancellationToken);

    /// <summary>Names an administrator; only the first one may.</summary>
    public Task<CreatedAdministrator> CreateAdministratorAsync(CreateAdministrator administrator, CancellationToken cancellationToken = default) =>
        transport.SendAsync<CreatedAdministrator>(HttpMethod.Post, "v1/administrators", administrator, cancellationToken);

    /// <summary>All administrators but the first.</summary>
    public Task<IReadOnlyList<Administrator>> ListAdministratorsAsync(CancellationToken cancellationToken = default) =>
        transport.GetAsync<IReadOnlyList<Administrator>>("v1/administrators", cancellationToken);

    /// <summary>Takes an administrator's token away; only the first one may.</summary>
    public Task RemoveAdministratorAsync(string name, CancellationToken cancellationToken = default) =>
        transport.SendAsync(HttpMethod.Delete, $"v1/administrators/{Escape(name)}", cancellationToken);

    /// <summary>Creates a LivePC.</summary>
    public Task<LivePc> CreateLivePcAsync(CreateLivePc livePc, CancellationToken cancellationToken = default) =>
        transport.SendAsync<LivePc>(HttpMethod.Post, "v1/livepcs", livePc, cancellationToken);

    /// <summary>All LivePCs.</summary>
    public Task<IReadOnlyList<LivePc>> ListLivePcsAsync(CancellationToken cancellationToken = default) => transport.GetAsync<IReadOnlyList<LivePc>>("v1/livepcs", cancellationToken);

    /// <summary>Entitles a user to a LivePC.</summary>
    public Task EntitleAsync(string livePc, string user, CancellationToken cancellationToken = default) =>
        transport.SendAsync(HttpMethod.Put, $"v1/livepcs/{Escape(livePc)}/entitlements/{Escape(user)}", cancellationToken);

    /// <summary>What a LivePC is stacked of.</summary>
    public Task<LivePcLayers> GetLayersAsync(string livePc, CancellationToken cancellationToken = default) =>
        transport.GetAsync<LivePcLayers>($"v1/livepcs/{Escape(livePc)}/layers", cancellationToken);

    /// <summary>Sets the application layers of a LivePC, lowest first.</summary>
    public Task<LivePcLayers> PutLayersAsync(string livePc, IReadOnlyList<LayerChoice> layers, CancellationToken cancellationToken = default) =>
        transport.SendAsync<LivePcLayers>(HttpMethod.Put, $"v1/livepcs/{Escape(livePc)}/layers", new PutLayers(layers), cancellationToken);

    /// <summary>What devices reported, the newest first; of one device or LivePC where that is named.</summary>
    public Task<IReadOnlyList<DeviceReport>> ListReportsAsync(string? device, string? livePc, CancellationToken cancellationToken = default)
    {
        var query = new[] { ("device", device), ("livePc", livePc) }.Where(one => one.Item2 is not null).Select(one => $"{one.Item1}={Uri.EscapeDataString(one.Item2!)}");
        return transport.GetAsync<IReadOnlyList<DeviceReport>>($"v1/reports?{string.Join('&', query)}", cancellationToken);
    }

    /// <summary>Reports that corporate layers started on this device, or why they did not.</summary>
    public Task SendReportAsync(string livePc, SendReport report, CancellationToken cancellationToken = default) =>
        transport.SendAsync(HttpMethod.Post, $"v1/device/livepcs/{Escape(livePc)}/reports", report, cancellationToken);

    /// <summary>Sends what a start of this device read.</summary>
    public Task SendRecordingAsync(string livePc, SendRecording recording, CancellationToken cancellationToken = default) =>
        transport.SendAsync(HttpMethod.Post, $"v1/device/livepcs/{Escape(livePc)}/recordings", recording, cancellationToken);

    /// <summary>What is known of a release's boot set.</summary>
    public Task<BootSetState> GetBootSetAsync(string image, int version, CancellationToken cancellationToken = default) =>
        transport.GetAsync<BootSetState>(string.Create(CultureInfo.InvariantCulture, $"v1/images/{Escape(image)}/releases/{version}/boot-set"), cancellationToken);

    /// <summary>Makes a release's boot pack of one device's recording that the administrator trusts.</summary>
    public Task<BootSetState> TrustRecordingAsync(string image, int version, string device, CancellationToken cancellationToken = default) =>
        transport.SendAsync<BootSetState>(
            HttpMethod.Post, string.Create(CultureInfo.InvariantCulture, $"v1/images/{Escape(image)}/releases/{version}/boot-set"), new TrustRecording(device), cancellationToken);

    /// <summary>Takes an entitlement away.</summary>
    public Task RemoveEntitlementAsync(string livePc, string user, CancellationToken cancellationToken = default) =>
        transport.SendAsync(HttpMethod.Delete, $"v1/livepcs/{Escape(livePc)}/entitlements/{Escape(user)}", cancellationToken);

    /// <summary>A page of the audit log, after the line with this number; of one actor, of one action, since a time, where that is said.</summary>
    public Task<AuditLog> GetAuditAsync(
        long after = 0, int limit = 1000, string? actor = null, string? action = null, DateTimeOffset? since = null, CancellationToken cancellationToken = default) =>
        transport.GetAsync<AuditLog>(
            string.Create(CultureInfo.InvariantCulture, $"v1/audit?after={after}&limit={limit}") + (actor is null ? "" : $"&actor={Escape(actor)}") + (action is null ? "" : $"&action={Escape(action)}")
            + (since is { } time ? $"&since={Escape(time.ToString("O", CultureInfo.InvariantCulture))}" : ""), cancellationToken);

    /// <summary>The LivePCs that this device's user is entitled to.</summary>
    public Task<IReadOnlyList<EntitledLivePc>> ListEntitledLivePcsAsync(CancellationToken cancellationToken = default) =>
        transport.GetAsync<IReadOnlyList<EntitledLivePc>>("v1/device/livepcs", cancellationToken);

    /// <summary>Takes a lease of a LivePC. Nothing of the grant is verified here.</summary>
    public Task<LeaseGrant> TakeLeaseAsync(string livePc, TakeLease request, CancellationToken cancellationToken = default) =>
        transport.SendAsync<LeaseGrant>(HttpMethod.Post, $"v1/device/livepcs/{Escape(livePc)}/lease", request, cancellationToken);

    /// <summary>Tells how far this device's user layers of a LivePC have grown. Nothing of the answer is verified here.</summary>
    public Task<SignedAnchors> StateAnchorsAsync(string livePc, StateAnchors anchors, CancellationToken cancellationToken = default) =>
        transport.SendAsync<SignedAnchors>(HttpMethod.Post, $"v1/device/livepcs/{Escape(livePc)}/anchors", anchors, cancellationToken);

    /// <summary>Orders a device to rejuvenate a LivePC.</summary>
    public Task<Order> CreateOrderAsync(string livePc, CreateOrder order, CancellationToken cancellationToken = default) =>
        transport.SendAsync<Order>(HttpMethod.Post, $"v1/livepcs/{Escape(livePc)}/orders", order, cancellationToken);

    /// <summary>All orders, newest first.</summary>
    public Task<IReadOnlyList<Order>> ListOrdersAsync(CancellationToken cancellationToken = default) => transport.GetAsync<IReadOnlyList<Order>>("v1/orders", cancellationToken);

    /// <summary>Takes an order back that the device has not carried out.</summary>
    public Task<Order> WithdrawOrderAsync(string id, CancellationToken cancellationToken = default) =>
        transport.SendAsync<Order>(HttpMethod.Post, $"v1/orders/{Escape(id)}/withdraw", null, cancellationToken);

    /// <summary>Delivers this device's receipts, and fetches what is ordered for a LivePC. Nothing of the answer is verified here.</summary>
    public Task<SignedOrders> FetchOrdersAsync(string livePc, FetchOrders question, CancellationToken cancellationToken = default) =>
        transport.SendAsync<SignedOrders>(HttpMethod.Post, $"v1/device/livepcs/{Escape(livePc)}/orders", question, cancellationToken);

    /// <summary>Closes the connections.</summary>
    public void Dispose() => transport.Dispose();

    private static string ReleasePath(string image, int version, string what) => string.Create(CultureInfo.InvariantCulture, $"v1/images/{Escape(image)}/releases/{version}/{what}");

    // A dot segment would be removed from the path; what names things has none.
    private static string Escape(string untrusted) => untrusted is "." or ".." or ""
        ? throw new NacreException(ErrorCatalogue.NameInvalid, $"'{untrusted}' is not a name")
        : Uri.EscapeDataString(untrusted);
}
