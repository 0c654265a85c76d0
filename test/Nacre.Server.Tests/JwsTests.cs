using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;
using Xunit;

namespace Nacre.Server.Tests;

public sealed class JwsTests : IDisposable
{
    private readonly ECDsa key = ECDsa.Create(ECCurve.NamedCurves.nistP256);

    private PublicKey Public => PublicKeys.From(key);

    public void Dispose() => key.Dispose();

    [Fact]
    public void What_was_signed_verifies()
    {
        var compact = Jws.Sign("hello"u8, key, "t", "k");
        Assert.Equal("hello"u8, Jws.Verify(compact, Public, ErrorCatalogue.LeaseNotAuthentic, "t"));
        Assert.True(Jws.TryReadKeyId(compact, out var id));
        Assert.Equal("k", id);
        Assert.Equal("hello", Jose.JWT.Decode(compact, key, Jose.JwsAlgorithm.ES256)); // another implementation agrees
        var theirs = Jose.JWT.Encode("hello", key, Jose.JwsAlgorithm.ES256);
        Assert.Equal("hello"u8, Jws.Verify(theirs, Public, ErrorCatalogue.LeaseNotAuthentic));
    }

    [Fact]
    public void Every_changed_character_is_noticed()
    {
        var compact = Jws.Sign("hello"u8, key, "t", "k");
        for (var i = 0; i < compact.Length; i++)
        {
            foreach (var other in "AB.=+ \n")
            {
                if (compact[i] != other)
                {
                    Refused(compact[..i] + other + compact[(i + 1)..]);
                }
            }
        }
    }

    [Fact]
    public void Other_types_algorithms_and_shapes_are_refused()
    {
        var compact = Jws.Sign("hello"u8, key, "t");
        Assert.False(Jws.TryVerify(compact, Public, "other", out _));
        using var other = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        Assert.False(Jws.TryVerify(compact, PublicKeys.From(other), null, out _));
        foreach (var header in (string[])
            ["""{"alg":"none"}""", """{"alg":"HS256"}""", """{"alg":"ES384"}""", """{"alg":"es256"}""", """{}""", "[]", "null", """{"alg":"ES256","crit":["b64"],"b64":false}""", """{"alg":"ES256","alg":"ES256"}"""])
        {
            var signed = Base64Url.EncodeToString(Encoding.UTF8.GetBytes(header)) + ".aGVsbG8";
            Refused(signed + "." + Base64Url.EncodeToString(key.SignData(Encoding.ASCII.GetBytes(signed), HashAlgorithmName.SHA256)));
            Refused(signed + ".");
        }

        foreach (var text in (string?[])[null, "", ".", "..", "...", compact + ".", compact + "=", " " + compact, compact + "A"])
        {
            Refused(text);
        }
    }

    [Fact]
    public void Keys_that_are_not_points_are_refused()
    {
        Assert.True(PublicKeys.TryRead(Public, out _));
        var zeros = Base64Url.EncodeToString(new byte[32]);
        foreach (var wrong in (PublicKey?[])
            [null, Public with { Kty = "RSA" }, Public with { Crv = "P-384" }, Public with { X = zeros, Y = zeros }, Public with { Y = Public.X }, Public with { X = Public.X + "=" }, Public with { X = null! }, Public with { X = "AAAA" }])
        {
            Assert.False(PublicKeys.TryRead(wrong, out _));
        }
    }

    private void Refused(string? text)
    {
        Assert.False(Jws.TryVerify(text, Public, null, out var payload), text);
        Assert.Empty(payload);
    }
}
