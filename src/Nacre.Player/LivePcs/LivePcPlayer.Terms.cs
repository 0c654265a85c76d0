using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Leases;
using Nacre.Player.Stacks;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <summary>Terms of use.</summary>
/// <param name="Text">What they say; empty: there are none.</param>
/// <param name="Version">Which text it is: 16 hexadecimal digits.</param>
/// <param name="IsAccepted">Whether the user agreed to this text on this device.</param>
public sealed record TermsOfUse(string Text, string Version, bool IsAccepted);

/// <content>The terms of use of a LivePC.</content>
public sealed partial class LivePcPlayer
{
    /// <summary>The terms of use as the server says them now, or as the kept lease does.</summary>
    /// <exception cref="NacreException">What keeps a lease from being taken.</exception>
    public async Task<TermsOfUse> ReadTermsAsync(string name, CancellationToken cancellationToken)
    {
        var folder = new LivePcFolder(paths, name);
        using var identity = EnrolledIdentity.Open(paths);
        var lease = await OpenedLease.TakeAsync(identity, folder, new StackBook(folder, time).Read().Needed, null, time, cancellationToken).ConfigureAwait(false);
        var text = lease.Policy.Get(Settings.EulaText);
        return new TermsOfUse(text, Settings.VersionOf(text), text.Length == 0 || folder.AcceptedTerms == Settings.VersionOf(text));
    }

    /// <summary>Notes that the user agreed to a text. The server hears of it from the LivePC when it runs.</summary>
    /// <exception cref="NacreException">FileAccess, NoSpace.</exception>
    public void AcceptTerms(string name, TermsOfUse terms)
    {
        ArgumentNullException.ThrowIfNull(terms);
        var folder = new LivePcFolder(paths, name);
        folder.Create();
        folder.AcceptedTerms = terms.Version;
    }
}
