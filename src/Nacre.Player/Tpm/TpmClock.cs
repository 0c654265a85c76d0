using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Nacre.Contracts;

namespace Nacre.Player.Tpm;

/// <summary>The TPM's clock: milliseconds for which the TPM had power since it was made or cleared (TCG, TPM 2.0 Library, Part 1, <c>Clock</c>). Nobody can set it back without losing what is in the TPM,
/// and it goes on where no player runs, or another system does. It may be inaccurate, and lose some of what passed before a loss of power.</summary>
internal static partial class TpmClock
{
    /// <summary>What it says; null where there is no TPM, or it does not answer.</summary>
    public static long? Read()
    {
        if (!TpmTools.IsThere)
        {
            return null;
        }

        try
        {
            var answer = Encoding.ASCII.GetString(TpmTools.RunAsync("tpm2_readclock", [], CancellationToken.None).GetAwaiter().GetResult());
            return ClockPattern().Match(answer) is { Success: true } match ? long.Parse(match.Groups[1].ValueSpan, CultureInfo.InvariantCulture) : null;
        }
        catch (NacreException)
        {
            return null;
        }
    }

    [GeneratedRegex(@"(?m)^\s+clock:\s*([0-9]{1,18})\s*$")]
    private static partial Regex ClockPattern();
}
