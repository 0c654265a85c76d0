using Nacre.Contracts;
using Npgsql;

namespace Nacre.Server;

/// <summary>How a server runs. Immutable; checked once, at start.</summary>
public sealed record ServerOptions
{
    /// <summary>The folder of all state that is not elsewhere: database, segments, keys, the administrator's token. Made where it is missing; each server has its own.</summary>
    public required string DataDirectory { get; init; }

    /// <summary>Where to listen, plain HTTP: TLS ends at the proxy in front. Only this computer by default; port 0 takes a free one.</summary>
    public string Listen { get; init; } = "http://127.0.0.1:8420";

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

    internal void Check()
    {
        if (string.IsNullOrWhiteSpace(DataDirectory))
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "the server needs a data directory");
        }

        if (!Uri.TryCreate(Listen, UriKind.Absolute, out var url) || url.Scheme != "http" || url.PathAndQuery != "/")
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"can't listen on '{Listen}': it must look like http://127.0.0.1:8420");
        }

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
}

/// <summary>A database of PostgreSQL's.</summary>
public sealed record PostgresOptions
{
    /// <summary>Where and who, in Npgsql's words: <c>Host=db.example;Database=nacre;Username=nacre;Password=…;SSL Mode=VerifyFull</c>.</summary>
    public required string ConnectionString { get; init; }

    /// <summary>Without what proves who.</summary>
    public override string ToString() => Parse() is { } parsed ? $"PostgreSQL, '{parsed.Database}' at {parsed.Host}" : "PostgreSQL";

    internal NpgsqlDataSource Open()
    {
        var parsed = Parse()!;
        parsed.ApplicationName ??= "nacre";
        parsed.IncludeErrorDetail = false; // would put values of rows into messages
        parsed.Multiplexing = false; // locks belong to a connection
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
