using Nacre.Contracts;

namespace Nacre.Server;

internal static class ImageEndpoints
{
    /// <summary>A signed manifest with the most segments fits, and the contents of an application layer of some 100,000 files.</summary>
    private const long LargestPublication = Jws.MaximumLength + (16 * 1024 * 1024);

    public static void Map(Groups groups)
    {
        var group = groups.Administrator;
        group.MapPut("/signing-key", async (PublicKey body, SigningKey key, CancellationToken cancellationToken) =>
                (await key.PutAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("PutSigningKey").WithSummary("Registers the organisation's release signing key, once.")
            .Produces<PublicKey>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.Immutable);
        groups.Of(Roles.Administrator, Roles.Author, Roles.Approver, Roles.Auditor).MapGet("/signing-key", async (SigningKey key, CancellationToken cancellationToken) => (await key.GetAsync(cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("GetSigningKey").WithSummary("The organisation's release signing key.")
            .Produces<PublicKey>().Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.Administrator, Roles.Author, Roles.Approver, Roles.HelpDesk, Roles.Auditor).MapGet("/images", (Images images, CancellationToken cancellationToken) => images.ListAsync(cancellationToken))
            .WithName("ListImages").WithSummary("All golden images.");
        groups.Of(Roles.Administrator, Roles.Author).MapPost("/images/{image}/releases", async (string image, PublishRelease body, Images images, CancellationToken cancellationToken) =>
                (await images.PublishAsync(image, body, cancellationToken))
                .ToHttp(stored => TypedResults.Json(stored.Value, statusCode: stored.IsNew ? StatusCodes.Status201Created : StatusCodes.Status200OK)))
            .WithName("PublishRelease").WithSummary("Publishes a signed release; the first one creates the image.")
            .WithMetadata(new BodyLimit(LargestPublication))
            .Produces<Release>(StatusCodes.Status201Created).Produces<Release>()
            .Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NameInvalid, ErrorCatalogue.Unsupported, ErrorCatalogue.ReleaseNotAuthentic, ErrorCatalogue.SegmentsMissing, ErrorCatalogue.Immutable);
        groups.Of(Roles.Administrator, Roles.Author, Roles.Approver, Roles.HelpDesk, Roles.Auditor).MapGet("/images/{image}/releases", async (string image, Images images, CancellationToken cancellationToken) =>
                (await images.ListReleasesAsync(image, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("ListReleases").WithSummary("An image's releases.")
            .Produces<IReadOnlyList<Release>>().Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.Administrator, Roles.Author, Roles.Approver, Roles.HelpDesk, Roles.Auditor).MapGet("/images/{image}/releases/{version:int}", async (string image, int version, Images images, CancellationToken cancellationToken) =>
                (await images.GetReleaseAsync(image, version, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("GetRelease").WithSummary("One release.")
            .Produces<Release>().Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.Administrator, Roles.Approver).MapPut("/images/{image}/channels/{channel}", async (string image, string channel, MoveChannel body, Images images, CancellationToken cancellationToken) =>
                (await images.MoveChannelAsync(image, channel, body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("MoveChannel").WithSummary("Points a channel at a release.")
            .Produces<Image>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NameInvalid, ErrorCatalogue.NotFound, ErrorCatalogue.NotApproved);
        groups.Of(Roles.Administrator, Roles.Author, Roles.Approver, Roles.HelpDesk, Roles.Auditor).MapGet("/rollouts", (Rollouts rollouts, CancellationToken cancellationToken) => rollouts.ListAsync(cancellationToken))
            .WithName("ListRollouts").WithSummary("The roll-outs that are under way.");
        groups.Of(Roles.Administrator, Roles.Approver).MapPost("/images/{image}/channels/{channel}/rollout", async (string image, string channel, StartRollout body, Rollouts rollouts, CancellationToken cancellationToken) =>
                (await rollouts.StartAsync(image, channel, body, cancellationToken)).ToHttp(rollout => TypedResults.Created((string?)null, rollout)))
            .WithName("StartRollout").WithSummary("Gives a release to a channel's devices in growing shares; the channel moves at the end.")
            .Produces<Rollout>(StatusCodes.Status201Created)
            .Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NameInvalid, ErrorCatalogue.NotFound, ErrorCatalogue.ChannelEmpty, ErrorCatalogue.AlreadyExists, ErrorCatalogue.NotApproved);
        groups.Of(Roles.Administrator, Roles.Approver).MapPatch("/images/{image}/channels/{channel}/rollout", async (string image, string channel, ChangeRollout body, Rollouts rollouts, CancellationToken cancellationToken) =>
                (await rollouts.ChangeAsync(image, channel, body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("ChangeRollout").WithSummary("Pauses, resumes or withdraws a roll-out, or begins its next step.")
            .Produces<Rollout>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotFound);
        group.MapPut("/images/{image}/retention", async (string image, ImageRetention body, Images images, CancellationToken cancellationToken) =>
                (await images.SetRetentionAsync(image, body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("SetRetention").WithSummary("How many of an image's newest releases are kept; absent: all.")
            .Produces<Image>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotFound);
    }
}
