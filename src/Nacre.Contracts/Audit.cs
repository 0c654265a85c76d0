namespace Nacre.Contracts;

/// <summary>One line of the audit log.</summary>
/// <param name="Sequence">1, 2, 3, … without gaps.</param>
/// <param name="At">When.</param>
/// <param name="Actor">Who: <c>administrator</c> (the first), <c>administrator:NAME</c>, <c>device:ID</c> or <c>code:ID</c>.</param>
/// <param name="Action">What, for example <c>device.revoke</c>.</param>
/// <param name="Subject">To what.</param>
/// <param name="Detail">More about it; never a secret.</param>
/// <param name="Hash">SHA-256 over the line before's hash and this line's fields, hexadecimal.</param>
public sealed record AuditEntry(long Sequence, DateTimeOffset At, string Actor, string Action, string Subject, string Detail, string Hash);

/// <summary>A page of the audit log and whether the whole log's chain of hashes holds.</summary>
/// <param name="Verified">Whether every line, on this page or not, has the hash it must have.</param>
/// <param name="FirstWrongSequence">The first line that has not; null where all have.</param>
/// <param name="Entries">The page, oldest first.</param>
public sealed record AuditLog(bool Verified, long? FirstWrongSequence, IReadOnlyList<AuditEntry> Entries);
