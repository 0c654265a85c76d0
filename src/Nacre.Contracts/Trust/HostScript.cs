using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Nacre.Contracts.Trust;

/// <summary>A script of the administrator's that checks a host: signed as a file of trust metadata is, by the keys of the trust root's role <c>targets</c>. No role of TUF's is of its kind, so none can be taken for
/// it. It travels with a policy; whoever writes policies can choose among what was signed and has not ended, and can't write another.</summary>
public sealed class HostScript : TrustMetadata
{
    /// <summary>Characters of the text.</summary>
    public const int LongestText = 16 * 1024;

    /// <summary>Seconds that one may take at most.</summary>
    public const int LongestSeconds = 300;

    private const string Kind = "host-script";

    /// <summary>Reads one; who signed it is for <see cref="TrustRole.Verify"/> to say.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic, Unsupported.</exception>
    public HostScript(ReadOnlyMemory<byte> untrusted)
        : base(untrusted, Kind, Kind)
    {
        Name = Signed.Text("name");
        Seconds = Signed.Number("seconds", 1);
        if (!Names.IsValid(Name) || Seconds > LongestSeconds
            || !Signed.TryGetProperty("text", out var text) || text.ValueKind != JsonValueKind.String || text.GetString() is not { Length: > 0 and <= LongestText } script || script.Contains('\0', StringComparison.Ordinal)
            || !Signed.TryGetProperty("open", out var open) || open.ValueKind is not (JsonValueKind.True or JsonValueKind.False))
        {
            throw Wrong("a host script's name, text, time or rule is missing or out of range");
        }

        (Script, FailsOpen) = (script, open.GetBoolean());
    }

    /// <summary>Its name, for people.</summary>
    public string Name { get; }

    /// <summary>What <c>/bin/sh</c> runs.</summary>
    public string Script { get; }

    /// <summary>How long it may take.</summary>
    public int Seconds { get; }

    /// <summary>Whether one that does not end in time, or can't be run, counts as not known; else as failed.</summary>
    public bool FailsOpen { get; }

    /// <summary>Reads text.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic, Unsupported.</exception>
    public static HostScript Parse(string untrusted) => new(Encoding.UTF8.GetBytes(untrusted));

    /// <summary>One that nobody has signed.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic: a value is out of range.</exception>
    public static HostScript Write(string name, string text, int seconds, bool failsOpen, int version, DateTimeOffset expires) => new(Write(new
    {
        _type = Kind,
        spec_version = SpecificationVersion,
        version,
        expires = Time(expires),
        name,
        text,
        seconds,
        open = failsOpen,
    }));

    /// <summary>The same with more signatures.</summary>
    public HostScript SignedBy(params ReadOnlySpan<ECDsa> keys) => new(Sign(this, keys));
}
