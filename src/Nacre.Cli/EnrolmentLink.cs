using System.Web;
using Nacre.Cli.Commands;
using Nacre.Contracts;

namespace Nacre.Cli;

/// <summary>A link with all that a device needs to enrol: <c>nacre://enrol?server=https%3a%2f%2fnacre.example&amp;code=ABCD-…</c>. It is as secret as its code.</summary>
internal static class EnrolmentLink
{
    private const string Start = "nacre://enrol?";
    private const int Longest = 2000;

    public static string Write(Uri server, string code) => $"{Start}server={Uri.EscapeDataString(server.AbsoluteUri.TrimEnd('/'))}&code={code}";

    /// <summary>The server and the code: of a link, or typed apart.</summary>
    /// <exception cref="NacreException">UsageInvalid: it is neither.</exception>
    public static (Uri Server, string Code) Read(string untrustedText, string? untrustedCode)
    {
        if (!untrustedText.StartsWith(Start, StringComparison.OrdinalIgnoreCase))
        {
            return (LoginCommand.Address(untrustedText), untrustedCode ?? throw new NacreException(ErrorCatalogue.UsageInvalid, "give the one-time code after the server's address, or the whole link, or sign in (--oidc, --user)"));
        }

        var fields = untrustedText.Length > Longest ? [] : HttpUtility.ParseQueryString(untrustedText[Start.Length..]);
        return untrustedCode is null && fields.GetValues("server") is [{ } server] && fields.GetValues("code") is [{ } code]
            ? (LoginCommand.Address(server), code)
            : throw new NacreException(ErrorCatalogue.UsageInvalid, "this is not an enrolment link as 'nacre device code USER --link' prints it; in a shell it needs quotation marks");
    }
}
