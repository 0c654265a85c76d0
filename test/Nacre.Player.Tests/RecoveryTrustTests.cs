using System.Security.Cryptography;
using Nacre.Contracts.Trust;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>A device hands its keys over to the recovery key that the organisation vouches for, and to none that a server makes up.</summary>
[Collection("NACRE_HOME")]
public sealed class RecoveryTrustTests
{
    [Fact]
    public async Task Only_the_recovery_key_that_the_targets_name_is_one()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        using ECDsa own = TrustedOrganisation.NewKey(), servers = TrustedOrganisation.NewKey();
        var (good, forged) = (TrustKey.From(own), TrustKey.From(servers));
        Assert.Null((await organisation.UpdateAsync()).RecoveryKey(good.Pem));

        organisation.Recovery = TrustTarget.Of(good.Pem);
        organisation.Delegate();
        var trust = await organisation.UpdateAsync();
        Assert.Equal(good.Id, trust.RecoveryKey(good.Pem)!.Id);
        Assert.Null(trust.RecoveryKey(forged.Pem));
        Assert.Null(trust.RecoveryKey(good.Pem + "\n"));
        Assert.Null(trust.RecoveryKey(null));

        // Known offline, and forgotten when the organisation has none any more.
        Assert.Equal(good.Id, organisation.Device().RecoveryKey(good.Pem)!.Id);
        organisation.Recovery = null;
        organisation.Delegate();
        Assert.Null((await organisation.UpdateAsync()).RecoveryKey(good.Pem));
    }

    [Fact]
    public async Task Targets_that_somebody_else_signed_name_no_recovery_key()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        using ECDsa servers = TrustedOrganisation.NewKey();
        var forged = TrustKey.From(servers);
        var images = new Dictionary<string, TrustRole> { ["desk"] = TrustedOrganisation.Role(1, organisation.Publisher) };
        var file = TrustMetadata.Sign(TargetsMetadata.WriteImages(organisation.Targets!.Version + 1, organisation.Time.GetUtcNow().AddDays(9), images, TrustTarget.Of(forged.Pem)), servers);
        organisation.Targets = new TargetsMetadata(file);
        organisation.Files[$"{organisation.Targets.Version}.targets.json"] = file;
        organisation.Stamp();
        var trust = await organisation.UpdateAsync();
        Assert.NotNull(trust.Problem);
        Assert.Null(trust.RecoveryKey(forged.Pem));
    }
}
