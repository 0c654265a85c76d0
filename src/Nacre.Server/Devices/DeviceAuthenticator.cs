using System.Globalization;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>Checks a device's signed token against this very request.</summary>
internal sealed class DeviceAuthenticator(NacreDatabase database, Caller caller, DeviceCertificates certificates, LastSeen lastSeen, DeviceQueries queries, TimeProvider time)
{
    /// <summary>Devices send small bodies, but for what an endpoint's <see cref="BodyLimit"/> says; a larger one is not read into memory for the digest.</summary>
    private const int LargestBody = 64 * 1024;

    /// <summary>The year 9999; keeps the sums below from overflowing.</summary>
    private const long LatestTime = 253_402_300_799;

    public async Task<Result<DeviceRow>> AuthenticateAsync(HttpRequest request, string untrustedToken, CancellationToken cancellationToken)
    {
        if (!Jws.TryReadKeyId(untrustedToken, out var untrustedId) || untrustedId.Length > 64)
        {
            return DeviceErrors.TokenInvalid;
        }

        var device = await queries.FindAsync(database, untrustedId, cancellationToken);
        if (device is null || !Jws.TryVerify(untrustedToken, device.PublicKey, DeviceToken.Type, out var payload)
            || !Jws.TryRead<DeviceToken>(payload, out var token))
        {
            return DeviceErrors.TokenInvalid; // an unknown device and a wrong signature look the same
        }

        caller.SignedBy = device.Id;
        if (device.RevokedAt is not null && request.HttpContext.GetEndpoint()?.Metadata.GetMetadata<LetsRevokedIn>() is null)
        {
            return DeviceErrors.Revoked;
        }

        if (certificates.Check(request.HttpContext, device) is { } refused)
        {
            return refused;
        }

        if (device.IsWaiting)
        {
            return DeviceErrors.Waiting;
        }

        if (token.Aud != DeviceToken.Audience || token.Iat is < 0 or > LatestTime || token.Exp <= token.Iat || token.Exp - token.Iat > DeviceToken.LongestLife)
        {
            return DeviceErrors.TokenInvalid;
        }

        var now = time.Now();
        var seconds = now.ToUnixTimeSeconds();
        if (token.Iat > seconds + DeviceToken.LargestSkew || token.Exp < seconds - DeviceToken.LargestSkew)
        {
            return DeviceErrors.ClockWrong(token.Iat, now);
        }

        if (token.Htm != request.Method || token.Htu != request.PathBase + request.Path + request.QueryString)
        {
            return DeviceErrors.TokenForAnotherRequest;
        }

        var body = await ReadBodyAsync(request, cancellationToken);
        if (body is null || token.Bsha256 != DeviceToken.Digest(body))
        {
            return DeviceErrors.TokenForAnotherRequest;
        }

        request.Body = new MemoryStream(body, writable: false);
        lastSeen.Note(device);
        return device;
    }

    private static async Task<byte[]?> ReadBodyAsync(HttpRequest request, CancellationToken cancellationToken)
    {
        var largest = request.HttpContext.GetEndpoint()?.Metadata.GetMetadata<BodyLimit>()?.MaxRequestBodySize ?? LargestBody;
        if (request.ContentLength > largest)
        {
            return null;
        }

        var buffer = new byte[largest + 1];
        var length = await request.Body.ReadAtLeastAsync(buffer, buffer.Length, throwOnEndOfStream: false, cancellationToken);
        return length > largest ? null : buffer[..length];
    }
}

internal static class DeviceErrors
{
    public static Failure TokenInvalid { get; } = new(ErrorCatalogue.Unauthenticated, "the device's token is not valid here");

    public static Failure TokenForAnotherRequest { get; } = new(ErrorCatalogue.Unauthenticated, "the device's token was signed for another method, path or body");

    public static Failure NoRoot { get; } = new(ErrorCatalogue.TrustMissing, "the organisation has no trust root yet, so a device could not tell its releases from others");

    public static Failure Revoked { get; } = new(ErrorCatalogue.DeviceRevoked, "this device was revoked");

    public static Failure Waiting { get; } = new(ErrorCatalogue.DeviceWaiting, "this device waits for approval by an administrator");

    public static Failure NotWaiting { get; } = new(ErrorCatalogue.DeviceNotWaiting, "this device does not wait for approval");

    public static Failure NoTls { get; } = new(ErrorCatalogue.RequestInvalid, "this server gives no certificates: its TLS ends at a proxy");

    public static Failure Certificate(string detail) => new(ErrorCatalogue.CertificateRefused, detail);

    public static Failure CodeWrong { get; } = new(ErrorCatalogue.EnrolmentCodeWrong, "this enrolment code is not one that the server knows");

    public static Failure CodeExpired { get; } = new(ErrorCatalogue.EnrolmentCodeExpired, "this enrolment code has expired");

    public static Failure CodeUsed { get; } = new(ErrorCatalogue.EnrolmentCodeUsed, "this enrolment code has been used");

    public static Failure TooMany(string user, int most) =>
        new(ErrorCatalogue.TooManyDevices, string.Create(System.Globalization.CultureInfo.InvariantCulture, $"user '{user}' has {most} devices, which is all that the policy allows"));

    public static Failure KeyEnrolled { get; } = new(ErrorCatalogue.AlreadyEnrolled, "this device's key is enrolled already");

    public static Failure RequestInvalid(string detail) => new(ErrorCatalogue.RequestInvalid, detail);

    public static Failure NoDevice { get; } = new(ErrorCatalogue.NotFound, "there is no such device");

    public static Failure ClockWrong(long issued, DateTimeOffset now)
    {
        var theirs = issued is >= 0 and <= 253_402_300_799 ? DateTimeOffset.FromUnixTimeSeconds(issued).ToString("u", CultureInfo.InvariantCulture) : "out of range";
        return new(ErrorCatalogue.ClockWrong, $"the device's clock says {theirs}, the server's {now.ToString("u", CultureInfo.InvariantCulture)}");
    }
}
