using Nacre.Contracts;
using Nacre.Player.Keys;
using Nacre.Player.Leases;
using Nacre.Player.Machines;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <content>What the user agrees to, and is told.</content>
public sealed partial class LivePcSession
{
    /// <summary>Makes sure that the user agreed to the terms of use as they are now.</summary>
    /// <exception cref="NacreException">TermsNotAccepted.</exception>
    private void RequireTerms()
    {
        if (Settings.VersionOf(policy.Get(Settings.EulaText)) is { Length: > 0 } version && folder.AcceptedTerms != version)
        {
            throw new NacreException(
                ErrorCatalogue.TermsNotAccepted, $"the terms of use of '{folder.Name}' {(folder.AcceptedTerms is null ? "were not accepted yet" : "changed, and were not accepted yet as they are now")}");
        }
    }

    /// <summary>What the company says to a start that it does not let happen, and whom to ask.</summary>
    private NacreException Explained(NacreException exception)
    {
        if (exception.Kind.ExitCode != ExitCode.Denied || LivePcKeys.IsAboutSecrets(exception.Kind))
        {
            return exception;
        }

        var holds = policy == Policy.Factory ? OpenedLease.ReadKeptPolicy(folder, paths) : policy;
        var words = new[] { Words(holds, Settings.MessagesRefused), Words(holds, Settings.SupportContact) is { } contact ? $"ask {contact}" : null }.OfType<string>().ToList();
        return words.Count == 0 ? exception : new NacreException(exception.Kind, $"{exception.Message}\n{string.Join('\n', words.Select(text => $"  {text}"))}", exception);
    }

    /// <summary>A text for people; null where there is none.</summary>
    internal static string? Words(Policy policy, Setting<string> setting) => policy.Get(setting) is { Length: > 0 } text ? GuestText.Line(text, 400) : null;
}
