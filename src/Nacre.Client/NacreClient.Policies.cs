using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Client;

/// <content>Policies, and the groups of users that they are decided for.</content>
public sealed partial class NacreClient
{
    /// <summary>What a level decides.</summary>
    public Task<PolicyDocument> GetPolicyAsync(string level, CancellationToken cancellationToken = default) =>
        transport.GetAsync<PolicyDocument>($"v1/policies/{Escape(level)}", cancellationToken);

    /// <summary>Sets all that a level decides.</summary>
    public Task<PolicyDocument> PutPolicyAsync(string level, PolicyDocument document, CancellationToken cancellationToken = default) =>
        transport.SendAsync<PolicyDocument>(HttpMethod.Put, $"v1/policies/{Escape(level)}", document, cancellationToken);

    /// <summary>Changes some of what a level decides (RFC 7396).</summary>
    /// <param name="level">The level.</param>
    /// <param name="changes">Setting to its value; null takes the decision back.</param>
    /// <param name="cancellationToken">Stops.</param>
    public Task<PolicyDocument> PatchPolicyAsync(string level, IReadOnlyDictionary<string, object?> changes, CancellationToken cancellationToken = default) =>
        transport.SendAsync<PolicyDocument>(HttpMethod.Patch, $"v1/policies/{Escape(level)}", changes, cancellationToken);

    /// <summary>What holds for a LivePC, on a device where one is named, and who decided it.</summary>
    public Task<EffectivePolicy> ExplainPolicyAsync(string livePc, string? device, CancellationToken cancellationToken = default) =>
        transport.GetAsync<EffectivePolicy>($"v1/livepcs/{Escape(livePc)}/policy{(device is null ? "" : $"?device={Escape(device)}")}", cancellationToken);

    /// <summary>Which policy each device enforces.</summary>
    public Task<IReadOnlyList<EnforcedPolicy>> ListEnforcedPoliciesAsync(CancellationToken cancellationToken = default) =>
        transport.GetAsync<IReadOnlyList<EnforcedPolicy>>("v1/policies", cancellationToken);

    /// <summary>Says which policy this device enforces.</summary>
    public Task AcknowledgePolicyAsync(string livePc, AcknowledgePolicy acknowledgement, CancellationToken cancellationToken = default) =>
        transport.SendAsync(HttpMethod.Post, $"v1/device/livepcs/{Escape(livePc)}/policy", acknowledgement, cancellationToken);

    /// <summary>Creates a group of users.</summary>
    public Task<Group> CreateGroupAsync(string name, CancellationToken cancellationToken = default) =>
        transport.SendAsync<Group>(HttpMethod.Post, "v1/groups", new CreateGroup(name), cancellationToken);

    /// <summary>All groups in their order.</summary>
    public Task<IReadOnlyList<Group>> ListGroupsAsync(CancellationToken cancellationToken = default) => transport.GetAsync<IReadOnlyList<Group>>("v1/groups", cancellationToken);

    /// <summary>Orders the groups.</summary>
    public Task<IReadOnlyList<Group>> OrderGroupsAsync(IReadOnlyList<string> groups, CancellationToken cancellationToken = default) =>
        transport.SendAsync<IReadOnlyList<Group>>(HttpMethod.Put, "v1/groups", new OrderGroups(groups), cancellationToken);

    /// <summary>Removes a group and its policy.</summary>
    public Task RemoveGroupAsync(string name, CancellationToken cancellationToken = default) => transport.SendAsync(HttpMethod.Delete, $"v1/groups/{Escape(name)}", cancellationToken);

    /// <summary>Puts a user into a group, or out of it.</summary>
    public Task PutMemberAsync(string group, string user, bool isMember, CancellationToken cancellationToken = default) =>
        transport.SendAsync(isMember ? HttpMethod.Put : HttpMethod.Delete, $"v1/groups/{Escape(group)}/members/{Escape(user)}", cancellationToken);
}
