using System.Net;
using Nacre.Contracts;
using Npgsql;

namespace Nacre.Server;

/// <summary>How a server runs. Immutable; checked once, at start.</summary>
public sealed record ServerOptions
{
    /// <summary>The folder of all state that is not elsewhere: database, segments, keys, the administrator's token. Made where it is missing; each server has its own.</summary>
    public required string DataDirectory { get; init; }

    /// <summary>Where to listen: <c>https://</c> with an address of this computer, TLS 1.3; or <c>http://</c> for this computer alone, or behind a proxy at which TLS ends. Only this
    /// computer by default; port 0 takes a free one.</summary>
    public string Listen { get; init; } = "http://127.0.0.1:8420";

    /// <summary>The names and addresses under which devices reach the server by TLS: the certificate of the organisation's own authority has them.</summary>
    public IReadOnlyList<string> Names { get; init; } = [];

    /// <summary>The administrator's own certificate with its chain, PEM; null: the organisation's own authority makes one. Read again when it changes.</summary>
    public string? CertificateFile { get; init; }

    /// <summary>The key of <see cref="CertificateFile"/>, PEM.</summary>
    public string? CertificateKeyFile { get; init; }

    /// <summary>With a certificate of the administrator's own, or a proxy's: the authorities, PEM, that devices are to believe; null: those that their computers trust.</summary>
    public string? AuthoritiesFile { get; init; }

    /// <summary>The organisation's name as devices show it, at most 100 characters.</summary>
    public string OrganisationName { get; init; } = "Nacre";

    /// <summary>The largest segment in bytes. 32 MiB bounds what one upload can hold and what a device must keep in memory.</summary>
    public long MaxSegmentBytes { get; init; } = 32 * 1024 * 1024;

    /// <summary>How long a segment stays that no release refers to, from when a publisher last sent it, was told that it is there, or its last release went. A day: longer
    /// than a publication takes.</summary>
    public TimeSpan SegmentGrace { get; init; } = TimeSpan.FromDays(1);

    /// <summary>The database of PostgreSQL's that keeps the state; null: SQLite in the data directory.</summary>
    public PostgresOptions? Postgres { get; init; }

    /// <summary>The folder of the key ring, which all servers of one database share; null: <c>keys</c> in the data directory.</summary>
    public string? KeyDirectory { get; init; }

    /// <summary>Proxies whose <c>X-Forwarded-For</c> says where a request comes from; anybody else's says nothing.</summary>
    public IReadOnlyList<System.Net.IPNetwork> TrustedProxies { get; init; } = [];

    /// <summary>The bucket that keeps the segments; null: the data directory does.</summary>
    public S3Options? S3 { get; init; }

    internal bool IsTls => Listen.StartsWith("https:", StringComparison.OrdinalIgnoreCase);

    /// <summary>Whether passwords, tokens and names may pass networks in the clear: plain HTTP, and not for this computer alone.</summary>
    internal bool IsOpen => !IsTls && !new Uri(Listen).IsLoopback;

    /// <summary>Where to listen by TLS.</summary>
    internal IPEndPoint Endpoint => new(AddressOf(new Uri(Listen))!, new Uri(Listen).Port);

    /// <summary>What the certificate of the organisation's own authority is for: this computer can always use it.</summary>
    internal IEnumerable<string> CertifiedNames
    {
        get
        {
            var address = Endpoint.Address;
            return Names.Concat(["localhost", "127.0.0.1", "::1"]).Concat(address.Equals(IPAddress.Any) || address.Equals(IPAddress.IPv6Any) ? [] : [address.ToString()]).Distinct(StringComparer.OrdinalIgnoreCase);
        }
    }

    internal void Check()
    {
        if (string.IsNullOrWhiteSpace(DataDirectory))
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "the server needs a data directory");
        }

        if (!Uri.TryCreate(Listen, UriKind.Absolute, out var url) || url.Scheme is not ("http" or "https") || url.PathAndQuery != "/")
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"can't listen on '{Listen}': it must look like https://0.0.0.0:8420, or http://127.0.0.1:8420");
        }

        CheckTls(url);

        if (OrganisationName is null || !Text.IsLabel(OrganisationName, 100))
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "the organisation's name must have 1 to 100 printable characters");
        }

        if (SegmentGrace < TimeSpan.FromMinutes(1) || SegmentGrace > TimeSpan.FromDays(365))
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "the grace period of segments must last between a minute and a year");
        }

        Postgres?.Check();
        S3?.Check();
        if (MaxSegmentBytes is < 1 or > 1L << 30)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "the largest segment must be between 1 byte and 1 GiB");
        }
    }

    private static IPAddress? AddressOf(Uri url) => url.Host == "localhost" ? IPAddress.Loopback : IPAddress.TryParse(url.Host.Trim('[', ']'), out var address) ? address : null;

    private void CheckTls(Uri url)
    {
        if (!IsTls)
        {
            if (CertificateFile is not null || CertificateKeyFile is not null || Names.Count > 0)
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, "names and a certificate are for TLS: listen on https://");
            }

            return;
        }

        if (AddressOf(url) is not { } address)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"can't listen on '{Listen}': with https it names an address of this computer, such as https://0.0.0.0:8420; the name that devices use is given with --name");
        }

        if (CertificateFile is null != CertificateKeyFile is null)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "a certificate and its key belong together: give both files, or neither");
        }

        if (CertificateFile is null && Names.Count == 0 && (address.Equals(IPAddress.Any) || address.Equals(IPAddress.IPv6Any)))
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"a certificate needs the name under which devices reach this server: 'https://nacre.example' is served with --listen {Listen} --name nacre.example");
        }

        if (Names.FirstOrDefault(name => Uri.CheckHostName(name) == UriHostNameType.Unknown) is { } wrong)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{wrong}' is neither a name such as nacre.example nor an address");
        }
    }
}

/// <summary>A database of PostgreSQL's.</summary>
public sealed record PostgresOptions
{
    /// <summary>Where and who, in Npgsql's words: <c>Host=db.example;Database=nacre;Username=nacre;Password=…;SSL Mode=VerifyFull</c>.</summary>
    public required string ConnectionString { get; init; }

    /// <summary>Without what proves who.</summary>
    public override string ToString() => Parse() is { } parsed ? $"PostgreSQL, '{parsed.Database}' at {parsed.Host}" : "PostgreSQL";

    /// <summary>The same with another database.</summary>
    /// <exception cref="NacreException">UsageInvalid: its name is longer than PostgreSQL's are; what is too much would be cut off, and two could become one.</exception>
    internal PostgresOptions WithDatabase(Func<string, string> name)
    {
        const int LongestName = 63;
        var database = name(Parse()!.Database!);
        return System.Text.Encoding.UTF8.GetByteCount(database) <= LongestName
            ? new PostgresOptions { ConnectionString = new NpgsqlConnectionStringBuilder(ConnectionString) { Database = database }.ToString() }
            : throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{database}' is longer than a database's name can be: choose a shorter name, or name a database with --postgres-file");
    }

    /// <summary>Statements that a connection keeps parsed, the oldest leaving first: more than what devices ask all day, and few enough for the memory of the database's processes.
    /// Zero in the connection string is for a pooler between that loses them.</summary>
    private const int MostPrepared = 100;

    internal NpgsqlDataSource Open()
    {
        var parsed = Parse()!;
        parsed.ApplicationName ??= "nacre";
        parsed.IncludeErrorDetail = false; // would put values of rows into messages
        parsed.Multiplexing = false; // locks belong to a connection
        parsed.NoResetOnClose = true; // no session is left changed: every request would pay for it
        if (!parsed.ShouldSerialize("Max Auto Prepare")) // not stated
        {
            parsed.MaxAutoPrepare = MostPrepared;
        }

        return NpgsqlDataSource.Create(parsed);
    }

    internal void Check()
    {
        if (Parse() is not { Host.Length: > 0, Database.Length: > 0 })
        {
            // Its words are not repeated: a password may be among them.
            throw new NacreException(ErrorCatalogue.UsageInvalid, "the connection string of PostgreSQL must look like Host=db.example;Database=nacre;Username=nacre, with the password in a file or in NACRE_POSTGRES");
        }
    }

    private NpgsqlConnectionStringBuilder? Parse()
    {
        try
        {
            return new NpgsqlConnectionStringBuilder(ConnectionString);
        }
        catch (Exception exception) when (exception is ArgumentException or FormatException or KeyNotFoundException)
        {
            return null;
        }
    }
}

/// <summary>A bucket of an S3-compatible service.</summary>
public sealed record S3Options
{
    /// <summary>The bucket's address in path style: <c>https://s3.example.com/BUCKET</c>.</summary>
    public required Uri Bucket { get; init; }

    /// <summary>The service's region; most that are not Amazon's take any.</summary>
    public string Region { get; init; } = "us-east-1";

    /// <summary>Who asks.</summary>
    public required string AccessKey { get; init; }

    /// <summary>What proves it.</summary>
    public required string SecretKey { get; init; }

    /// <summary>Without the secret.</summary>
    public override string ToString() => $"{Bucket}";

    internal string Service => Bucket.GetLeftPart(UriPartial.Authority);

    internal string Name => Bucket.AbsolutePath.Trim('/');

    internal void Check()
    {
        if (!Bucket.IsAbsoluteUri || Bucket.Scheme is not ("http" or "https") || Bucket.Query.Length > 0 || Bucket.UserInfo.Length > 0 || Name.Length == 0 || Name.Contains('/', StringComparison.Ordinal))
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{Bucket}' is not the address of a bucket: it must look like https://s3.example.com/BUCKET");
        }

        if (string.IsNullOrWhiteSpace(Region) || string.IsNullOrEmpty(AccessKey) || string.IsNullOrEmpty(SecretKey))
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "a bucket needs a region, an access key and a secret key (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment)");
        }
    }
}
