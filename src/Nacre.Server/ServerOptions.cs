using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>How a server runs. Immutable; checked once, at start.</summary>
public sealed record ServerOptions
{
    /// <summary>The folder of all state: database, segments, keys, the administrator's token. Made where it is missing.</summary>
    public required string DataDirectory { get; init; }

    /// <summary>Where to listen, plain HTTP: TLS ends at the proxy in front. Only this computer by default; port 0 takes a free one.</summary>
    public string Listen { get; init; } = "http://127.0.0.1:8420";

    /// <summary>The organisation's name as devices show it, at most 100 characters.</summary>
    public string OrganisationName { get; init; } = "Nacre";

    /// <summary>How long a device may work without the server. Seven days: a holiday week offline, and a lost device dies within one.</summary>
    public TimeSpan LeaseDuration { get; init; } = TimeSpan.FromDays(7);

    /// <summary>The largest segment in bytes. 32 MiB bounds what one upload can hold and what a device must keep in memory.</summary>
    public long MaxSegmentBytes { get; init; } = 32 * 1024 * 1024;

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

        if (LeaseDuration < TimeSpan.FromMinutes(1) || LeaseDuration > TimeSpan.FromDays(365))
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "a lease must last between a minute and a year");
        }

        if (MaxSegmentBytes is < 1 or > 1L << 30)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "the largest segment must be between 1 byte and 1 GiB");
        }
    }
}
