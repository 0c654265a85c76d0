using System.Globalization;
using System.Text;
using Nacre.Contracts;
using Nacre.Images.Recipes;

namespace Nacre.Images.Building;

/// <summary>
/// Writes what a recipe says beyond packages as one script and the files it refers to. Every value goes in as one quoted word or as a file;
/// only the recipe's own scripts are shell text.
/// </summary>
internal static class RecipeSteps
{
    private const string Place = "/nacre-build";

    /// <summary>Writes <c>recipe.sh</c>, one <c>script-N.sh</c> for each script, and their files into <paramref name="folder"/>.</summary>
    internal static void Write(Recipe recipe, string folder)
    {
        var script = new StringBuilder("#!/bin/sh\nset -eu\numask 022\n");
        if (recipe.Kind == ImageKind.System)
        {
            WriteSystem(recipe, script);
        }

        for (var index = 0; index < recipe.Files.Length; index++)
        {
            WriteFile(recipe.Files[index], $"file-{index}", folder, script);
        }

        foreach (var unit in recipe.EnabledServices)
        {
            script.Append(CultureInfo.InvariantCulture, $"systemctl enable -- {Quote(unit)}\n");
        }

        foreach (var unit in recipe.DisabledServices)
        {
            script.Append(CultureInfo.InvariantCulture, $"systemctl disable -- {Quote(unit)}\n");
        }

        File.WriteAllText(Path.Combine(folder, "recipe.sh"), script.ToString());

        // Apart, because only they see the secrets, and each is a step that a build may begin behind.
        for (var index = 0; index < recipe.Scripts.Length; index++)
        {
            var step = recipe.Scripts[index];
            File.WriteAllText(Path.Combine(folder, $"script-{index}"), step.Run);
            File.WriteAllText(
                Path.Combine(folder, $"script-{index}.sh"),
                $"#!/bin/sh\nset -eu\numask 022\nprintf 'N: script %s\\n' {Quote(step.Name)}\nexec /bin/sh -eu {Place}/script-{index} </dev/null\n");
        }
    }

    /// <summary>One shell word that means exactly <paramref name="value"/>.</summary>
    internal static string Quote(string value) => "'" + value.Replace("'", "'\\''", StringComparison.Ordinal) + "'";

    /// <summary>The host's name, the locale and the accounts: a system's, never an application layer's.</summary>
    private static void WriteSystem(Recipe recipe, StringBuilder script)
    {
        script.Append(CultureInfo.InvariantCulture, $"printf '%s\\n' {Quote(recipe.HostName)} >/etc/hostname\n");
        script.Append(CultureInfo.InvariantCulture, $"printf '127.0.0.1 localhost\\n::1 localhost\\n127.0.1.1 %s\\n' {Quote(recipe.HostName)} >/etc/hosts\n");
        WriteLocale(recipe, script);
        foreach (var user in recipe.Users)
        {
            WriteUser(user, script);
        }
    }

    private static void WriteLocale(Recipe recipe, StringBuilder script)
    {
        var locale = Quote(recipe.Locale);
        if (recipe.Locale != "C.UTF-8")
        {
            script.Append(CultureInfo.InvariantCulture, $"if command -v locale-gen >/dev/null; then printf '%s UTF-8\\n' {locale} >/etc/locale.gen; locale-gen; fi\n");
        }

        script.Append(CultureInfo.InvariantCulture, $"printf 'LANG=%s\\n' {locale} >/etc/default/locale\n");
        script.Append("ln -sfn ../default/locale /etc/locale.conf 2>/dev/null || :\n");
        var zone = Quote(recipe.TimeZone);
        script.Append(CultureInfo.InvariantCulture, $"[ -e /usr/share/zoneinfo/{zone} ] || [ {zone} = Etc/UTC ] || {{ echo 'E: the time zone needs the package tzdata, or does not exist' >&2; exit 1; }}\n");
        script.Append(CultureInfo.InvariantCulture, $"ln -sfn /usr/share/zoneinfo/{zone} /etc/localtime\nprintf '%s\\n' {zone} >/etc/timezone\n");
    }

    private static void WriteUser(RecipeUser user, StringBuilder script)
    {
        var name = Quote(user.Name);
        foreach (var group in user.Groups)
        {
            script.Append(CultureInfo.InvariantCulture, $"getent group {Quote(group)} >/dev/null || groupadd --system -- {Quote(group)}\n");
        }

        script.Append(CultureInfo.InvariantCulture, $"useradd --create-home --user-group --shell {Quote(user.Shell)} --comment {Quote(user.FullName)}");
        if (!user.Groups.IsEmpty)
        {
            script.Append(CultureInfo.InvariantCulture, $" --groups {Quote(string.Join(',', user.Groups))}");
        }

        if (user.PasswordHash is not null)
        {
            script.Append(CultureInfo.InvariantCulture, $" --password {Quote(user.PasswordHash)}");
        }

        script.Append(CultureInfo.InvariantCulture, $" -- {name}\n");
        if (user.Autologin)
        {
            // The display manager's autologin only: a console never opens by itself.
            script.Append("mkdir -p /etc/lightdm/lightdm.conf.d\n");
            script.Append(CultureInfo.InvariantCulture, $"printf '[Seat:*]\\nautologin-user=%s\\nautologin-user-timeout=0\\n' {name} >/etc/lightdm/lightdm.conf.d/50-nacre.conf\n");
        }
    }

    private static void WriteFile(RecipeFile file, string name, string folder, StringBuilder script)
    {
        File.WriteAllBytes(Path.Combine(folder, name), [.. file.Content]);
        var target = Quote(file.Path);
        // In the root alone, so a link in the way cannot lead out of it; a link itself is replaced, not followed.
        script.Append(CultureInfo.InvariantCulture, $"mkdir -p -- {Quote(Path.GetDirectoryName(file.Path)!)}\n");
        script.Append(CultureInfo.InvariantCulture, $"rm -f -- {target}\ncp -- {Place}/{name} {target}\n");
        script.Append(CultureInfo.InvariantCulture, $"chown -- {Quote(file.Owner)} {target}\nchmod {Convert.ToString(file.Mode, 8)} -- {target}\n");
    }
}
