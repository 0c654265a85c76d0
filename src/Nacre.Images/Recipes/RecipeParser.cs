using System.Collections.Immutable;
using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;

namespace Nacre.Images.Recipes;

/// <summary>
/// Reads recipes. A recipe is untrusted text until this has looked at all of it: everything wrong is reported at once, and nothing is built
/// from a recipe with an error.
/// </summary>
public static class RecipeParser
{
    /// <summary>Larger than any recipe written by a person; keeps a hostile file from filling memory.</summary>
    private const int MaximumRecipeBytes = 1 << 20;

    /// <summary>Files are for configuration; software comes in packages.</summary>
    private const int MaximumFileBytes = 64 << 20;

    /// <summary>Recipes that are each from the next; more is a mistake.</summary>
    private const int MaximumChain = 8;

    /// <summary>Parses the recipe at <paramref name="path"/>; local files it names are read from its folder.</summary>
    /// <param name="path">The recipe.</param>
    /// <param name="variables">Values in the place of the defaults of the variables that the recipe declares.</param>
    /// <exception cref="RecipeException">The recipe is missing, is not YAML, or says something wrong; carries every error.</exception>
    public static Recipe Parse(string path, IReadOnlyDictionary<string, string>? variables = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        var errors = new List<RecipeError>();
        var recipe = new Reading(path, variables ?? ImmutableDictionary<string, string>.Empty, errors).Read();
        return errors.Count == 0 && recipe is not null
            ? recipe
            : throw new RecipeException([.. errors.OrderBy(error => error.File == path).ThenBy(error => error.Line).ThenBy(error => error.Column)]);
    }

    private static byte[]? ReadText(string path, List<RecipeError> errors)
    {
        try
        {
            using var stream = File.OpenRead(path);
            var buffer = new byte[MaximumRecipeBytes + 1];
            var length = stream.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false);
            if (length <= MaximumRecipeBytes)
            {
                return buffer[..length];
            }

            errors.Add(new RecipeError(path, 1, 1, "", $"larger than {MaximumRecipeBytes} bytes"));
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            errors.Add(new RecipeError(path, 1, 1, "", $"cannot be read: {exception.Message}"));
        }

        return null;
    }

    private sealed class Reading(string path, IReadOnlyDictionary<string, string> given, List<RecipeError> errors)
    {
        private readonly IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);

        internal Recipe? Read()
        {
            if (ReadFile(path, []) is not { } root)
            {
                return null;
            }

            var values = ReadVariables(root);
            foreach (var (name, value) in given.OrderBy(pair => pair.Key, StringComparer.Ordinal))
            {
                hash.AppendData(SHA256.HashData(Encoding.UTF8.GetBytes($"{name}={value}")));
            }

            return ReadRecipe(new RecipeFields((RecipeMap)new RecipeExpansion(values, Report).Expand(root), "", Report));
        }

        /// <summary>A recipe's text, laid over that of the one it is from.</summary>
        private RecipeMap? ReadFile(string file, ImmutableArray<string> above)
        {
            if (ReadText(file, errors) is not { } bytes)
            {
                return null;
            }

            string text;
            try
            {
                text = new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(bytes);
            }
            catch (DecoderFallbackException)
            {
                errors.Add(new RecipeError(file, 1, 1, "", "not UTF-8 text"));
                return null;
            }

            hash.AppendData(SHA256.HashData(bytes));
            var root = new RecipeReader(file, text, (mark, key, message) =>
                errors.Add(new RecipeError(file, Math.Max(1, (int)mark.Line), Math.Max(1, (int)mark.Column), key, message))).Read();
            switch (root)
            {
                case null:
                    return null;
                case RecipeMap map:
                    return LayOver(map, file, above.Add(Path.GetFullPath(file)));
                default:
                    Report(root, "", "expected a mapping");
                    return null;
            }
        }

        private RecipeMap? LayOver(RecipeMap map, string file, ImmutableArray<string> chain)
        {
            if (map.Entries.FirstOrDefault(entry => entry.Key.Value == "from").Value is not { } from)
            {
                return map;
            }

            var fields = new RecipeFields(map, "", Report);
            if (fields.Text(from, "from", null, "the path of another recipe, relative to this one") is not { } name || !IsBelow(fields, from, "from", name))
            {
                return null;
            }

            var other = Path.Combine(Path.GetDirectoryName(file) ?? "", name);
            if (chain.Contains(Path.GetFullPath(other), StringComparer.Ordinal))
            {
                Report(from, "from", $"'{name}' is from this recipe in turn");
                return null;
            }

            if (chain.Length >= MaximumChain)
            {
                Report(from, "from", $"more than {MaximumChain} recipes, each from the next");
                return null;
            }

            if (!File.Exists(other))
            {
                Report(from, "from", $"'{name}' does not exist");
                return null;
            }

            return ReadFile(other, chain) is { } below ? RecipeLayering.Over(below, map) : null;
        }

        /// <summary>The values of the variables: what was given, else their defaults.</summary>
        private Dictionary<string, string> ReadVariables(RecipeMap root)
        {
            var values = new Dictionary<string, string>(StringComparer.Ordinal);
            var declared = root.Entries.FirstOrDefault(entry => entry.Key.Value == "variables").Value;
            if (declared is not null and not RecipeMap)
            {
                Report(declared, "variables", "expected a mapping of names and defaults");
            }

            foreach (var (key, value) in (declared as RecipeMap)?.Entries ?? [])
            {
                if (!RecipeSyntax.Variable().IsMatch(key.Value))
                {
                    Report(key, "variables", "expected a name of letters, digits and _, at most 64");
                }
                else if (value is not RecipeScalar { Value: var otherwise } scalar)
                {
                    Report(value, $"variables.{key.Value}", "expected a text, or nothing where there is no default");
                }
                else if (given.TryGetValue(key.Value, out var chosen))
                {
                    values[key.Value] = chosen;
                }
                else if (otherwise.Length > 0 || scalar.Quoted)
                {
                    values[key.Value] = otherwise;
                }
                else
                {
                    Report(key, $"variables.{key.Value}", $"has no default: give it with --var {key.Value}=VALUE");
                    values[key.Value] = "";
                }
            }

            foreach (var name in given.Keys.Where(name => (declared as RecipeMap)?.Entries.Any(entry => entry.Key.Value == name) != true))
            {
                Report(declared ?? root, "variables", $"'{name}' was given, and no variable is called so");
            }

            return values;
        }

        private void Report(RecipeNode node, string key, string message) =>
            errors.Add(new RecipeError(node.File, node.Line, node.Column, key, message));

        /// <summary>The files travel with the recipe: one that names /etc/shadow or ../../ would take in what its author can't read but the builder can.</summary>
        private static bool IsBelow(RecipeFields fields, RecipeNode node, string key, string name)
        {
            if (name.StartsWith('/') || name.Split('/').Any(part => part is ".." or "") || name.Any(char.IsControl))
            {
                fields.Report(node, key, "expected a path below the recipe's folder, without '..'");
                return false;
            }

            var folder = Path.GetDirectoryName(Path.GetFullPath(node.File))!;
            for (FileSystemInfo? step = new FileInfo(Path.Combine(folder, name)); step is not null && step.FullName != folder; step = Directory.GetParent(step.FullName))
            {
                if (step.LinkTarget is not null)
                {
                    fields.Report(node, key, $"'{name}' goes through a symbolic link, which could leave the recipe's folder");
                    return false;
                }
            }

            return true;
        }

        private Recipe ReadRecipe(RecipeFields fields)
        {
            var name = fields.Text("name", RecipeSyntax.Slug(), "lower-case letters, digits and hyphens", required: true);
            var kind = fields.Text("kind", RecipeSyntax.Kind(), "system or application", "system") == "application" ? ImageKind.Application : ImageKind.System;
            RejectUnfit(fields, kind);
            var services = fields.Map("services");
            var enabled = services?.Words("enable", RecipeSyntax.Unit(), "a systemd unit") ?? [];
            var disabled = services?.Words("disable", RecipeSyntax.Unit(), "a systemd unit") ?? [];
            foreach (var unit in enabled.Intersect(disabled, StringComparer.Ordinal))
            {
                services!.Report(services.Node, "enable", $"'{unit}' is both enabled and disabled");
            }

            services?.RejectUnknown();
            var recipe = new Recipe
            {
                Name = name,
                Description = fields.Text("description", null, "text"),
                Kind = kind,
                On = kind == ImageKind.Application ? fields.Text("on", RecipeSyntax.Slug(), "the name of the system image that it is built on", required: true) : "",
                Base = ReadBase(fields, kind),
                Kernel = ReadKernel(fields),
                Packages = fields.Words("packages", RecipeSyntax.Package(), "a Debian package name"),
                Files = ReadFiles(fields),
                Users = ReadUsers(fields),
                EnabledServices = enabled,
                DisabledServices = disabled,
                Scripts = [.. fields.Maps("scripts").Select(ReadScript)],
                Secrets = fields.Words("secrets", RecipeSyntax.Variable(), "a name of letters, digits and _, at most 64"),
                HostName = fields.Text("hostname", RecipeSyntax.HostName(), "a host name (letters, digits, hyphens)", name),
                Locale = fields.Text("locale", RecipeSyntax.Locale(), "a UTF-8 locale such as en_GB.UTF-8", "C.UTF-8"),
                TimeZone = fields.Text("timezone", RecipeSyntax.TimeZone(), "a time zone such as Europe/Paris", "Etc/UTC"),
            };
            fields.Find("from");
            fields.Find("variables");
            fields.RejectUnknown();
            return recipe with { Sha256 = Convert.ToHexStringLower(hash.GetHashAndReset()) };
        }

        /// <summary>What only the other kind can have.</summary>
        private static void RejectUnfit(RecipeFields fields, ImageKind kind)
        {
            string[] unfit = kind == ImageKind.System ? ["on"] : ["kernel", "users", "hostname", "locale", "timezone"];
            foreach (var key in unfit.Where(fields.Has))
            {
                fields.Report(fields.Find(key)!, key, kind == ImageKind.System ? "only an application layer is built on a system (kind: application)" : "an application layer has none: the system has it");
            }
        }

        private static RecipeBase ReadBase(RecipeFields fields, ImageKind kind)
        {
            const string expectedSource = "a line such as 'deb https://mirror.example/debian bookworm main' ([signed-by=/path] and [arch=…] allowed)";
            if (fields.Map("base") is not { } inner)
            {
                if (!fields.Has("base") && kind == ImageKind.System)
                {
                    fields.Report(fields.Node, "base", "missing; expected a mapping with a suite");
                }

                return new RecipeBase();
            }

            var suite = inner.Text("suite", RecipeSyntax.Suite(), "a Debian suite such as bookworm", required: true);
            var components = inner.Words("components", RecipeSyntax.Component(), "an archive section such as main");
            var mirror = inner.Text("mirror", RecipeSyntax.Mirror(), "an http or https address");
            var sources = inner.Words("sources", RecipeSyntax.Source(), expectedSource, refuse: source => RecipeSyntax.UncheckedSource().IsMatch(source)
                ? "has apt take packages that nobody signed: leave that option out, or list the source without it in base.unverifiedSources, and every check of the release says so"
                : null);
            var unverified = inner.Words("unverifiedSources", RecipeSyntax.UnverifiedSource(), "a line such as 'deb http://mirror.example/debian bookworm main' ([arch=…] allowed)", refuse: source =>
                RecipeSyntax.UncheckedSource().IsMatch(source) ? "give the source without this option: base.unverifiedSources means it" : null);
            if (inner.Has("mirror") && inner.Has("sources"))
            {
                inner.Report(inner.Find("sources")!, "sources", "give either a mirror or sources");
            }

            inner.RejectUnknown();
            components = components.IsEmpty ? ["main"] : components;
            return new RecipeBase
            {
                Suite = suite,
                Components = components,
                UnverifiedSources = [.. unverified.Select(line => line.StartsWith("deb [", StringComparison.Ordinal) ? $"deb [trusted=yes {line["deb [".Length..]}" : $"deb [trusted=yes] {line["deb ".Length..]}")],
                Sources = mirror.Length > 0 ? [$"deb {mirror} {suite} {string.Join(' ', components)}"] : sources,
            };
        }

        private static RecipeKernel ReadKernel(RecipeFields fields)
        {
            if (fields.Map("kernel") is not { } inner)
            {
                return new RecipeKernel();
            }

            var kernel = new RecipeKernel
            {
                Package = inner.Text("package", RecipeSyntax.KernelPackage(), "a kernel package such as linux-image-amd64", "linux-image-amd64"),
                CommandLine = inner.Text("cmdline", RecipeSyntax.CommandLine(), "kernel parameters (letters, digits and _ . / : = , + @ -)"),
            };
            inner.RejectUnknown();
            return kernel;
        }

        private ImmutableArray<RecipeFile> ReadFiles(RecipeFields fields)
        {
            var files = ImmutableArray.CreateBuilder<RecipeFile>();
            foreach (var inner in fields.Maps("files"))
            {
                var target = inner.Text("path", null, "an absolute path", required: true);
                if (target.Length > 0 && !RecipeSyntax.IsPath(target))
                {
                    inner.Report(inner.Find("path")!, "path", "expected an absolute path without '.', '..', doubled slashes or control characters");
                }
                else if (target.Length > 0 && files.Any(file => file.Path == target))
                {
                    inner.Report(inner.Find("path")!, "path", $"'{target}' is there twice");
                }

                var mode = inner.Text("mode", RecipeSyntax.Mode(), "octal permissions such as 0644", "0644");
                files.Add(new RecipeFile
                {
                    Path = target,
                    Content = [.. ReadContent(inner)],
                    Mode = mode.Aggregate(0, (value, digit) => (value * 8) + (digit - '0')),
                    Owner = inner.Text("owner", RecipeSyntax.Owner(), "user or user:group", "root:root"),
                });
                inner.RejectUnknown();
            }

            return files.ToImmutable();
        }

        private byte[] ReadContent(RecipeFields fields)
        {
            var content = fields.Find("content");
            var source = fields.Find("source");
            if (content is null == source is null)
            {
                fields.Report(source ?? fields.Node, "content", "expected exactly one of content and source");
                return [];
            }

            if (content is not null)
            {
                return Encoding.UTF8.GetBytes(fields.Text(content, "content", null, "text") ?? "");
            }

            return fields.Text(source!, "source", null, "a path relative to the recipe") is { } name ? ReadSource(fields, source!, name) : [];
        }

        private byte[] ReadSource(RecipeFields fields, RecipeNode node, string name)
        {
            if (!IsBelow(fields, node, "source", name))
            {
                return [];
            }

            try
            {
                var file = new FileInfo(Path.Combine(Path.GetDirectoryName(Path.GetFullPath(node.File))!, name));
                if (file is { Exists: true, Length: > MaximumFileBytes })
                {
                    fields.Report(node, "source", $"'{name}' is larger than {MaximumFileBytes} bytes");
                    return [];
                }

                var content = File.ReadAllBytes(file.FullName);
                hash.AppendData(SHA256.HashData(Encoding.UTF8.GetBytes(name)));
                hash.AppendData(SHA256.HashData(content));
                return content;
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
            {
                fields.Report(node, "source", $"'{name}' cannot be read: {exception.Message}");
                return [];
            }
        }

        private static ImmutableArray<RecipeUser> ReadUsers(RecipeFields fields)
        {
            var users = ImmutableArray.CreateBuilder<RecipeUser>();
            foreach (var inner in fields.Maps("users"))
            {
                var name = inner.Text("name", RecipeSyntax.User(), "a user name (lower-case letters, digits, _ and -)", required: true);
                if (name is "root")
                {
                    inner.Report(inner.Find("name")!, "name", "root is there already, and stays locked");
                }
                else if (name.Length > 0 && users.Any(user => user.Name == name))
                {
                    inner.Report(inner.Find("name")!, "name", $"'{name}' is there twice");
                }

                var shell = inner.Text("shell", null, "an absolute path", "/bin/bash");
                if (!RecipeSyntax.IsPath(shell) || shell.Contains(':', StringComparison.Ordinal))
                {
                    inner.Report(inner.Find("shell")!, "shell", "expected the absolute path of a program");
                }

                var autologin = inner.Flag("autologin");
                if (autologin && users.Any(user => user.Autologin))
                {
                    inner.Report(inner.Find("autologin")!, "autologin", "one user at most can be signed in automatically");
                }

                users.Add(new RecipeUser
                {
                    Name = name,
                    FullName = inner.Text("fullName", RecipeSyntax.FullName(), "a name without ':', ',' and '='"),
                    Groups = inner.Words("groups", RecipeSyntax.User(), "a group name"),
                    Shell = shell,
                    Autologin = autologin,
                    PasswordHash = inner.Has("password")
                        ? inner.Text("password", RecipeSyntax.PasswordHash(), "a hash as 'mkpasswd' prints it (never the password)")
                        : null,
                });
                inner.RejectUnknown();
            }

            return users.ToImmutable();
        }

        private static RecipeScript ReadScript(RecipeFields fields)
        {
            var script = new RecipeScript
            {
                Name = fields.Text("name", RecipeSyntax.ScriptName(), "a name of one line", required: true),
                Run = fields.Text("run", null, "shell text", required: true),
            };
            fields.RejectUnknown();
            return script;
        }
    }
}
