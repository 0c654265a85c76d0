using System.Security.Cryptography.X509Certificates;

namespace Nacre.Client;

/// <summary>With what a client proves who it is.</summary>
public abstract record Credential
{
    private Credential()
    {
    }

    /// <summary>Nobody: enrolment and segments need none.</summary>
    public static Credential None { get; } = new Nobody();

    /// <summary>The administrator.</summary>
    public static Credential Administrator(string token) => new AdministratorToken(token);

    /// <summary>A person: the token of a session, or of a named administrator.</summary>
    public static Credential Person(string token) => new AdministratorToken(token);

    /// <summary>One of the organisation's replicas.</summary>
    public static Credential Replica(string token) => new ReplicaToken(token);

    /// <summary>An enrolled device. The key stays the caller's to dispose.</summary>
    /// <param name="id">The device's identity.</param>
    /// <param name="key">Signs each request.</param>
    /// <param name="certificate">The certificate to show in TLS at that time, with its own key; null: none.</param>
    public static Credential Device(string id, DeviceKey key, Func<X509Certificate2?>? certificate = null) => new EnrolledDeviceKey(id, key, certificate);

    internal sealed record Nobody : Credential
    {
        public override string ToString() => nameof(None);
    }

    internal sealed record AdministratorToken(string Token) : Credential
    {
        public override string ToString() => "Administrator { Token = *** }";
    }

    internal sealed record ReplicaToken(string Token) : Credential
    {
        public override string ToString() => "Replica { Token = *** }";
    }

    internal sealed record EnrolledDeviceKey(string Id, DeviceKey Key, Func<X509Certificate2?>? Certificate) : Credential
    {
        public override string ToString() => $"Device {{ Id = {Id} }}";
    }
}
