using System.Globalization;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Server;

internal sealed class GroupRow
{
    public required string Name { get; init; }

    /// <summary>Its place among the groups: of a user in several, the later one's policy wins.</summary>
    public required int Position { get; set; }
}

internal sealed class GroupMemberRow
{
    public required string Group { get; init; }

    public required string User { get; init; }
}

/// <summary>Groups of users.</summary>
internal sealed class UserGroups(NacreDatabase database, AuditTrail audit)
{
    private const int Most = 1000;

    public async Task<Result<Group>> CreateAsync(CreateGroup untrusted, CancellationToken cancellationToken)
    {
        if (!Names.IsValid(untrusted.Name))
        {
            return IdentityErrors.NameInvalid("a group");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var groups = await database.Groups.ToListAsync(cancellationToken);
        if (groups.Exists(row => row.Name == untrusted.Name))
        {
            return new Failure(ErrorCatalogue.AlreadyExists, $"there is a group '{untrusted.Name}' already");
        }

        if (groups.Count >= Most)
        {
            return new Failure(ErrorCatalogue.RequestInvalid, string.Create(CultureInfo.InvariantCulture, $"there are {Most} groups, and can't be more"));
        }

        database.Groups.Add(new GroupRow { Name = untrusted.Name, Position = groups.Count == 0 ? 0 : groups.Max(row => row.Position) + 1 });
        await audit.AppendAsync(Roles.Administrator, "group.create", untrusted.Name, "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return new Group(untrusted.Name, []);
    }

    public async Task<IReadOnlyList<Group>> ListAsync(CancellationToken cancellationToken)
    {
        var members = (await database.GroupMembers.AsNoTracking().OrderBy(row => row.User).ToListAsync(cancellationToken)).ToLookup(row => row.Group, row => row.User);
        return (await database.Groups.AsNoTracking().OrderBy(row => row.Position).ToListAsync(cancellationToken)).ConvertAll(row => new Group(row.Name, [.. members[row.Name]]));
    }

    /// <summary>Removes a group, its policy with it.</summary>
    public async Task<Result<Done>> RemoveAsync(string untrustedName, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.Groups.SingleOrDefaultAsync(row => row.Name == untrustedName, cancellationToken) is not { } group)
        {
            return NoGroup;
        }

        var level = new PolicyLevel(PolicyLevelKind.Group, group.Name).ToString();
        database.Groups.Remove(group);
        database.Policies.RemoveRange(await database.Policies.Where(row => row.Level == level).ToListAsync(cancellationToken));
        await audit.AppendAsync(Roles.Administrator, "group.remove", group.Name, "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    /// <summary>Puts a user into a group, or out of it. Doing it again changes nothing.</summary>
    public async Task<Result<Done>> PutMemberAsync(string untrustedName, string untrustedUser, bool isMember, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (!await database.Groups.AnyAsync(row => row.Name == untrustedName, cancellationToken))
        {
            return NoGroup;
        }

        if (!await database.Users.AnyAsync(row => row.Name == untrustedUser, cancellationToken))
        {
            return Names.IsValid(untrustedUser) ? IdentityErrors.NoUser(untrustedUser) : IdentityErrors.NameInvalid("a user");
        }

        var row = await database.GroupMembers.SingleOrDefaultAsync(one => one.Group == untrustedName && one.User == untrustedUser, cancellationToken);
        if (isMember == row is not null)
        {
            return default(Done);
        }

        if (row is null)
        {
            database.GroupMembers.Add(new GroupMemberRow { Group = untrustedName, User = untrustedUser });
        }
        else
        {
            database.GroupMembers.Remove(row);
        }

        await audit.AppendAsync(Roles.Administrator, isMember ? "group.add" : "group.drop", untrustedName, untrustedUser, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    /// <summary>Puts the groups in an order; of a user in several the later one's policy wins.</summary>
    public async Task<Result<Group[]>> OrderAsync(OrderGroups untrusted, CancellationToken cancellationToken)
    {
        await using (var transaction = await database.BeginWriteAsync(cancellationToken))
        {
            var groups = await database.Groups.ToListAsync(cancellationToken);
            if (untrusted.Groups?.Count != groups.Count || !untrusted.Groups.Order(StringComparer.Ordinal).SequenceEqual(groups.Select(row => row.Name).Order(StringComparer.Ordinal)))
            {
                return new Failure(ErrorCatalogue.RequestInvalid, "'groups' must name every group once");
            }

            foreach (var group in groups)
            {
                group.Position = untrusted.Groups.ToList().IndexOf(group.Name);
            }

            await audit.AppendAsync(Roles.Administrator, "group.order", "", string.Join(' ', untrusted.Groups), cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }

        return (await ListAsync(cancellationToken)).ToArray();
    }

    private static Failure NoGroup { get; } = new(ErrorCatalogue.NotFound, "there is no such group");
}

internal static class GroupEndpoints
{
    public static void Map(Groups groups)
    {
        var group = groups.Administrator;
        group.MapPost("/groups", async (CreateGroup body, UserGroups userGroups, CancellationToken cancellationToken) =>
                (await userGroups.CreateAsync(body, cancellationToken)).ToHttp(created => TypedResults.Created((string?)null, created)))
            .WithName("CreateGroup").WithSummary("Creates a group of users, after the others.")
            .Produces<Group>(StatusCodes.Status201Created).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NameInvalid, ErrorCatalogue.AlreadyExists);
        groups.Of(Roles.Administrator, Roles.HelpDesk, Roles.Auditor).MapGet("/groups", (UserGroups userGroups, CancellationToken cancellationToken) => userGroups.ListAsync(cancellationToken))
            .WithName("ListGroups").WithSummary("All groups in their order, and who is in them.");
        group.MapPut("/groups", async (OrderGroups body, UserGroups userGroups, CancellationToken cancellationToken) =>
                (await userGroups.OrderAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("OrderGroups").WithSummary("Orders the groups; of a user in several the later one's policy wins.")
            .Produces<IReadOnlyList<Group>>().Fails(ErrorCatalogue.RequestInvalid);
        group.MapDelete("/groups/{name}", async (string name, UserGroups userGroups, CancellationToken cancellationToken) =>
                (await userGroups.RemoveAsync(name, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("RemoveGroup").WithSummary("Removes a group and its policy; its users stay.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.NotFound);
        group.MapPut("/groups/{name}/members/{user}", async (string name, string user, UserGroups userGroups, CancellationToken cancellationToken) =>
                (await userGroups.PutMemberAsync(name, user, isMember: true, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("AddMember").WithSummary("Puts a user into a group.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.NameInvalid, ErrorCatalogue.NotFound);
        group.MapDelete("/groups/{name}/members/{user}", async (string name, string user, UserGroups userGroups, CancellationToken cancellationToken) =>
                (await userGroups.PutMemberAsync(name, user, isMember: false, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("RemoveMember").WithSummary("Takes a user out of a group.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.NameInvalid, ErrorCatalogue.NotFound);
    }
}
