using System.Security.Cryptography;
using System.Text.Json;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Nacre.Volumes.Releases;

namespace Nacre.Cli;

/// <summary>
/// The administrator's side of this computer: which server, with which token, and the two secrets that never go there: the organisation's
/// secret and the release signing key. In <c>NACRE_ADMIN_HOME</c>, else <c>$XDG_CONFIG_HOME/nacre</c>, else <c>~/.config/nacre</c>.
/// </summary>
internal static class Administration
{
    private sealed record Login(Uri Server, string Token, string? Authorities = null)
    {
        public override string ToString() => $"{Server}";
    }

    private static string Home { get; } = Environment.GetEnvironmentVariable("NACRE_ADMIN_HOME") is { Length: > 0 } home ? Path.GetFullPath(home) : Path.Combine(
        Environment.GetEnvironmentVariable("XDG_CONFIG_HOME") is { Length: > 0 } config
            ? config : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".config"), "nacre");

    private static string LoginPath => Path.Combine(Home, "login.json");

    private static string SecretPath => Path.Combine(Home, "organisation.secret");

    private static string SigningPath => Path.Combine(Home, "release-signing.key");

    private static string TrustedPath => Path.Combine(Home, "trust.json");

    /// <summary>The trust metadata that this computer trusts; null before the first.</summary>
    public static TrustedFiles? ReadTrusted() => File.Exists(TrustedPath) ? JsonSerializer.Deserialize<TrustedFiles>(File.ReadAllBytes(TrustedPath), ContractJson.Options) : null;

    /// <summary>Keeps it.</summary>
    public static void KeepTrusted(TrustedFiles files) => WriteSecret(TrustedPath, JsonSerializer.SerializeToUtf8Bytes(files, ContractJson.Options));

    /// <summary>A client with the token that this user logged or signed in with.</summary>
    /// <exception cref="NacreException">NotLoggedIn.</exception>
    public static NacreClient Connect()
    {
        if (!File.Exists(LoginPath) || JsonSerializer.Deserialize<Login>(File.ReadAllText(LoginPath), ContractJson.Options) is not { } login)
        {
            throw new NacreException(ErrorCatalogue.NotLoggedIn, "this user is not logged in to a server");
        }

        return new NacreClient(login.Server, Credential.Person(login.Token), trust: ServerTrust.Of(login.Authorities));
    }

    /// <summary>The authorities that were named (<c>--ca</c>, else <c>NACRE_CA</c>): a file, PEM; null: those that this computer trusts.</summary>
    /// <exception cref="NacreException">FileAccess.</exception>
    public static async Task<string?> ReadAuthoritiesAsync(string? file, CancellationToken cancellationToken) =>
        (file ?? Environment.GetEnvironmentVariable("NACRE_CA")) is { Length: > 0 } path ? await File.ReadAllTextAsync(path, cancellationToken) : null;

    /// <summary>Keeps the login, after the server accepted it.</summary>
    public static async Task LogInAsync(Uri server, string token, string? authorities, CancellationToken cancellationToken)
    {
        using var client = new NacreClient(server, Credential.Person(token), trust: ServerTrust.Of(authorities));
        await client.GetAccountAsync(cancellationToken);
        Keep(server, token, authorities);
    }

    /// <summary>Keeps the token of a session that began, readable by this user only.</summary>
    public static void Keep(Uri server, string token, string? authorities)
    {
        if (File.Exists(TrustedPath) && File.Exists(LoginPath) && JsonSerializer.Deserialize<Login>(File.ReadAllBytes(LoginPath), ContractJson.Options)?.Server != server)
        {
            File.Delete(TrustedPath); // another server's organisation
        }

        WriteSecret(LoginPath, JsonSerializer.SerializeToUtf8Bytes(new Login(server, token, authorities), ContractJson.Options));
    }

    /// <summary>Keeps another token for the same server.</summary>
    public static void Renew(string token)
    {
        var login = JsonSerializer.Deserialize<Login>(File.ReadAllBytes(LoginPath), ContractJson.Options)!;
        Keep(login.Server, token, login.Authorities);
    }

    /// <summary>Forgets the token.</summary>
    public static void Forget() => File.Delete(LoginPath);

    /// <summary>The organisation's secret, made at the first use.</summary>
    public static PublisherKeys PublisherKeys()
    {
        if (!File.Exists(SecretPath))
        {
            WriteSecret(SecretPath, RandomNumberGenerator.GetBytes(32));
        }

        return new PublisherKeys(File.ReadAllBytes(SecretPath));
    }

    /// <summary>The release signing key, made at the first use; the caller disposes it.</summary>
    public static ECDsa SigningKey()
    {
        var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        if (File.Exists(SigningPath))
        {
            key.ImportPkcs8PrivateKey(File.ReadAllBytes(SigningPath), out _);
        }
        else
        {
            WriteSecret(SigningPath, key.ExportPkcs8PrivateKey());
        }

        return key;
    }

    private static void WriteSecret(string path, byte[] content)
    {
        Directory.CreateDirectory(Home, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        var temporary = path + ".new";
        File.Delete(temporary);
        using (var file = new FileStream(temporary, new FileStreamOptions
        {
            Mode = FileMode.CreateNew,
            Access = FileAccess.Write,
            UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
        }))
        {
            file.Write(content);
            file.Flush(flushToDisk: true);
        }

        File.Move(temporary, path, overwrite: true);
    }
}
