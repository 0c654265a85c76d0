namespace Nacre.Contracts;

/// <summary>The body of every failure: application/problem+json (RFC 9457) with the catalogue's code and hint.</summary>
/// <param name="Type">A URI that names the kind of failure.</param>
/// <param name="Title">The kind of failure in a few words.</param>
/// <param name="Status">HTTP status.</param>
/// <param name="Detail">What happened and why.</param>
/// <param name="Code">Code in the <see cref="ErrorCatalogue"/>.</param>
/// <param name="Hint">What to do about it.</param>
/// <param name="TraceId">Finds the request in the server's log.</param>
public sealed record Problem(string Type, string Title, int Status, string Detail, string Code, string Hint, string TraceId);
