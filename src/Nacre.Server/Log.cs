namespace Nacre.Server;

/// <summary>
/// Every event of the server. Ids by subsystem: 1000 hosting, 2000 identity, 3000 devices, 4000 images, 5000 LivePCs, 6000 leases,
/// 7000 audit. No parameter is ever a secret.
/// </summary>
internal static partial class Log
{
    [LoggerMessage(1001, LogLevel.Information, "Data directory {Directory} is ready, the database is {Database}")]
    public static partial void Ready(this ILogger logger, string directory, string database);

    [LoggerMessage(1002, LogLevel.Error, "{Method} {Path} failed, trace {TraceId}")]
    public static partial void RequestFailed(this ILogger logger, string method, string path, string traceId, Exception exception);

    [LoggerMessage(1003, LogLevel.Critical, "The disk of the data directory, or of the database, is full, trace {TraceId}")]
    public static partial void DiskFull(this ILogger logger, string traceId);

    [LoggerMessage(1004, LogLevel.Error, "A request failed, trace {TraceId}: {Reason}")]
    public static partial void DatabaseAway(this ILogger logger, string reason, string traceId);

    [LoggerMessage(1005, LogLevel.Warning, "The certificate could not be read again; the one that was read before goes on")]
    public static partial void CertificateNotRead(this ILogger logger, Exception exception);

    [LoggerMessage(1006, LogLevel.Warning, "Plain HTTP on {Listen}: use it behind a proxy at which TLS ends, or listen on https://")]
    public static partial void ListensInTheClear(this ILogger logger, string listen);

    [LoggerMessage(1007, LogLevel.Information, "Organisation {Organisation} is served as {Hosts}")]
    public static partial void OrganisationStarted(this ILogger logger, string organisation, string hosts);

    [LoggerMessage(1008, LogLevel.Information, "Organisation {Organisation} was removed, and is served no more")]
    public static partial void OrganisationStopped(this ILogger logger, string organisation);

    [LoggerMessage(1009, LogLevel.Error, "Organisation {Organisation} can't be served, which is tried again in a minute: {Reason}")]
    public static partial void OrganisationNotStarted(this ILogger logger, string organisation, string reason);

    [LoggerMessage(1010, LogLevel.Warning, "The organisations could not be looked for; the next second tries again")]
    public static partial void OrganisationsNotRead(this ILogger logger, Exception exception);

    [LoggerMessage(2001, LogLevel.Warning, "The administrator's token is in {Path}: move it to where only you read it")]
    public static partial void TokenFile(this ILogger logger, string path);

    [LoggerMessage(3001, LogLevel.Warning, "Expired enrolment codes could not be cleared")]
    public static partial void CodesNotCleared(this ILogger logger, Exception exception);

    [LoggerMessage(3002, LogLevel.Warning, "Ended sessions and invitations could not be cleared; the next hour tries again")]
    public static partial void PeopleNotCleared(this ILogger logger, Exception exception);

    [LoggerMessage(3003, LogLevel.Warning, "The OpenID provider was refused: {Reason}")]
    public static partial void ProviderRefused(this ILogger logger, string reason);
    [LoggerMessage(3101, LogLevel.Warning, "Orders that other servers queued could not be looked for")]
    public static partial void OrdersNotSeen(this ILogger logger, Exception exception);

    [LoggerMessage(3103, LogLevel.Warning, "Devices' logs whose time is over could not be deleted; the next hour tries again")]
    public static partial void LogsNotDeleted(this ILogger logger, Exception exception);

    [LoggerMessage(7001, LogLevel.Error, "What was refused could not be written to the audit log")]
    public static partial void RefusalNotWritten(this ILogger logger, Exception exception);

    [LoggerMessage(3102, LogLevel.Error, "When devices were last seen could not be written down; it is tried again")]
    public static partial void LastSeenNotWritten(this ILogger logger, Exception exception);

    [LoggerMessage(4001, LogLevel.Warning, "The store could not be cleaned; the next hour tries again")]
    public static partial void StoreNotCleaned(this ILogger logger, Exception exception);
}
