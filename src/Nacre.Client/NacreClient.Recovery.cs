using Nacre.Contracts;

namespace Nacre.Client;

/// <content>Recovery: what devices hand over for who has forgotten a password.</content>
public sealed partial class NacreClient
{
    /// <summary>The organisation's recovery key.</summary>
    public Task<RecoveryKey> GetRecoveryKeyAsync(CancellationToken cancellationToken = default) => transport.GetAsync<RecoveryKey>("v1/recovery/key", cancellationToken);

    /// <summary>Sets it.</summary>
    public Task<RecoveryKey> PutRecoveryKeyAsync(RecoveryKey key, CancellationToken cancellationToken = default) =>
        transport.SendAsync<RecoveryKey>(HttpMethod.Put, "v1/recovery/key", key, cancellationToken);

    /// <summary>Which devices have handed over a recovery code.</summary>
    public Task<IReadOnlyList<EscrowEntry>> ListEscrowsAsync(CancellationToken cancellationToken = default) => transport.GetAsync<IReadOnlyList<EscrowEntry>>("v1/recovery", cancellationToken);

    /// <summary>What a device has handed over; the reason is written down.</summary>
    public Task<ReleasedEscrow> ReleaseEscrowAsync(string device, string livePc, string reason, CancellationToken cancellationToken = default) =>
        transport.SendAsync<ReleasedEscrow>(HttpMethod.Post, $"v1/devices/{Escape(device)}/livepcs/{Escape(livePc)}/recovery", new ReleaseEscrow(reason), cancellationToken);

    /// <summary>Hands over a recovery code and the LivePC's key.</summary>
    public Task PutEscrowAsync(string livePc, PutEscrow escrow, CancellationToken cancellationToken = default) =>
        transport.SendAsync(HttpMethod.Put, $"v1/device/livepcs/{Escape(livePc)}/escrow", escrow, cancellationToken);
}
