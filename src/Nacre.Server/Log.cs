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

    [LoggerMessage(2001, LogLevel.Warning, "The administrator's token is in {Path}: move it to where only you read it")]
    public static partial void TokenFile(this ILogger logger, string path);

    [LoggerMessage(3001, LogLevel.Warning, "Expired enrolment codes could not be cleared")]
    public static partial void CodesNotCleared(this ILogger logger, Exception exception);

    [LoggerMessage(7001, LogLevel.Error, "What was refused could not be written to the audit log")]
    public static partial void RefusalNotWritten(this ILogger logger, Exception exception);

    [LoggerMessage(4001, LogLevel.Warning, "The store could not be cleaned; the next hour tries again")]
    public static partial void StoreNotCleaned(this ILogger logger, Exception exception);
}
