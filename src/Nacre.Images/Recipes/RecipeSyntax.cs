using System.Text.RegularExpressions;

namespace Nacre.Images.Recipes;

/// <summary>The shapes of the words in a recipe. Each is anchored with \z: a trailing line break is no part of any of them.</summary>
internal static partial class RecipeSyntax
{
    [GeneratedRegex(@"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\z")]
    internal static partial Regex Slug();

    [GeneratedRegex(@"\A(system|application)\z")]
    internal static partial Regex Kind();

    /// <summary>The name of a variable or a secret.</summary>
    [GeneratedRegex(@"\A[A-Za-z_][A-Za-z0-9_]{0,63}\z")]
    internal static partial Regex Variable();

    /// <summary><c>$${</c>, which stands for <c>${</c>; a use of a variable; and what only looks like one.</summary>
    [GeneratedRegex(@"\$\$\{|\$\{(?<name>[A-Za-z_][A-Za-z0-9_]{0,63})\}|\$\{")]
    internal static partial Regex Use();

    [GeneratedRegex(@"\A[a-z0-9][a-z0-9+.-]{1,99}\z")]
    internal static partial Regex Package();

    [GeneratedRegex(@"\Alinux-image-[a-z0-9+.-]{1,80}\z")]
    internal static partial Regex KernelPackage();

    [GeneratedRegex(@"\A[a-z][a-z0-9-]{0,30}\z")]
    internal static partial Regex Suite();

    [GeneratedRegex(@"\A[a-z][a-z0-9-]{0,40}\z")]
    internal static partial Regex Component();

    [GeneratedRegex(@"\A[a-z_][a-z0-9_-]{0,31}\z")]
    internal static partial Regex User();

    [GeneratedRegex(@"\A[a-z_][a-z0-9_-]{0,31}(:[a-z_][a-z0-9_-]{0,31})?\z")]
    internal static partial Regex Owner();

    [GeneratedRegex(@"\A[A-Za-z0-9_\\][A-Za-z0-9_.@\\-]{0,200}\z")]
    internal static partial Regex Unit();

    [GeneratedRegex(@"\A[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\z")]
    internal static partial Regex HostName();

    [GeneratedRegex(@"\A(C|[a-z]{2,3}_[A-Z]{2})\.UTF-8\z")]
    internal static partial Regex Locale();

    [GeneratedRegex(@"\A[A-Za-z0-9_+-]{1,40}(/[A-Za-z0-9_+-]{1,40}){0,2}\z")]
    internal static partial Regex TimeZone();

    [GeneratedRegex(@"\A[0-7]{3,4}\z")]
    internal static partial Regex Mode();

    [GeneratedRegex(@"\A\$(y|gy|7|2[aby]|6|5)\$[./A-Za-z0-9$=,]{10,250}\z")]
    internal static partial Regex PasswordHash();

    [GeneratedRegex(@"\A[A-Za-z0-9 _./:=,+@-]{0,400}\z")]
    internal static partial Regex CommandLine();

    [GeneratedRegex(@"\A[^\p{Cc}:,=]{0,100}\z")]
    internal static partial Regex FullName();

    [GeneratedRegex(@"\A[^\p{Cc}]{1,100}\z")]
    internal static partial Regex ScriptName();

    [GeneratedRegex(@"\Ahttps?://[A-Za-z0-9.:\[\]-]{1,253}(/[A-Za-z0-9._~/%-]*)?\z")]
    internal static partial Regex Mirror();

    // deb [option=value …] URI suite component…: no option that switches signatures off.
    [GeneratedRegex(@"\Adeb( \[(signed-by=/[A-Za-z0-9/._-]+|arch=[a-z0-9,]+)( (signed-by=/[A-Za-z0-9/._-]+|arch=[a-z0-9,]+))*\])? https?://[A-Za-z0-9.:-]{1,253}(/[A-Za-z0-9._~/%-]*)? [A-Za-z0-9./_-]{1,100}( [a-z][a-z0-9/-]{0,40})+\z")]
    internal static partial Regex Source();

    /// <summary>A source with an option that has apt take what nobody signed, or what is signed with broken methods.</summary>
    [GeneratedRegex(@"\Adeb\s*\[[^]]*\b(trusted|allow-insecure|allow-weak|allow-downgrade-to-insecure)[+-]?=", RegexOptions.IgnoreCase)]
    internal static partial Regex UncheckedSource();

    // As a source, without keys: nothing is checked with them.
    [GeneratedRegex(@"\Adeb( \[arch=[a-z0-9,]+\])? https?://[A-Za-z0-9.:-]{1,253}(/[A-Za-z0-9._~/%-]*)? [A-Za-z0-9./_-]{1,100}( [a-z][a-z0-9/-]{0,40})+\z")]
    internal static partial Regex UnverifiedSource();

    /// <summary>Absolute, canonical (no <c>.</c>, <c>..</c>, doubled or trailing slash), without control characters, at most 1024 long.</summary>
    internal static bool IsPath(string path) =>
        path.Length is > 1 and <= 1024 && path[0] == '/' && !path.Any(char.IsControl)
        && path[1..].Split('/').All(part => part is not ("" or "." or ".."));
}
