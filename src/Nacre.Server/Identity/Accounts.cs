using System.Security.Cryptography;
using System.Text;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using OtpNet;

namespace Nacre.Server;

/// <summary>How a person signs in here. A name is one person: the user and the administrator of that name.</summary>
internal sealed class AccountRow
{
    public required string Name { get; init; }

    /// <summary>The password's hash with its parameters; null: there is no password.</summary>
    public string? Password { get; set; }

    /// <summary>The authenticator's secret, encrypted.</summary>
    public byte[]? Authenticator { get; set; }

    /// <summary>Whether a code of it was shown, so that it is asked for.</summary>
    public bool IsAuthenticatorConfirmed { get; set; }

    /// <summary>The number of the newest code that was used: it and those before are void.</summary>
    public long LastAuthenticatorStep { get; set; }

    public byte[]? InvitationHash { get; set; }

    public DateTimeOffset? InvitationExpiresAt { get; set; }

    public bool InvitationRemovesSecondFactor { get; set; }
}

/// <summary>A recovery code that was not used. 80 random bits: a fast hash is enough.</summary>
internal sealed class RecoveryCodeRow
{
    public required string Person { get; init; }

    public required byte[] Hash { get; init; }
}

internal static class AccountErrors
{
    /// <summary>One answer for a name that there is not, a wrong password and a wrong code.</summary>
    public static Failure Refused { get; } = new(ErrorCatalogue.SignInRefused, "the name, the password or the code is wrong");

    public static Failure CodeNeeded { get; } = new(ErrorCatalogue.SecondFactorNeeded, "this account asks for a code of its authenticator too");

    public static Failure InvitationWrong { get; } = new(ErrorCatalogue.InvitationWrong, "this invitation is not one that the server knows now");

    public static Failure NoPassword { get; } = new(ErrorCatalogue.NoPassword, "who asks has no password at this server");

    public static Failure NoPerson(string untrustedName) => new(ErrorCatalogue.NotFound, $"there is no user or administrator '{(Names.IsValid(untrustedName) ? untrustedName : "?")}'");

    public static Failure StaffIsTheFirsts { get; } = new(ErrorCatalogue.Forbidden, "only the first administrator may do this to somebody who has more rights than a user");

    public static Failure NoAuthenticator { get; } = new(ErrorCatalogue.NotFound, "there is no authenticator");

    public static Failure AuthenticatorThere { get; } = new(ErrorCatalogue.AlreadyExists, "there is an authenticator already: disable it first");

    public static Failure CodeWrong { get; } = new(ErrorCatalogue.SignInRefused, "the code is not what the authenticator shows now");
}

/// <summary>Local accounts: password, authenticator (RFC 6238), recovery codes, invitations.</summary>
internal sealed class Accounts(NacreDatabase database, AuditTrail audit, Caller caller, Passwords passwords, Sessions sessions, Throttle throttle, SecretBox secrets, TimeProvider time)
{
    public const int RecoveryCodeCount = 10;
    private const string Issuer = "Nacre";
    private static readonly TimeSpan InvitationLife = TimeSpan.FromDays(3), ShortestInvitation = TimeSpan.FromMinutes(1), LongestInvitation = TimeSpan.FromDays(30);

    public async Task<Result<SignedIn>> SignInAsync(SignIn untrusted, CancellationToken cancellationToken)
    {
        var (name, password, code) = (untrusted.Name ?? "", untrusted.Password ?? "", untrusted.Code);
        if (await throttle.TakeAsync(name, cancellationToken) is { } tooMany)
        {
            return tooMany;
        }

        // Of a name that there is not as much is done as of one that there is.
        var before = await database.Accounts.AsNoTracking().SingleOrDefaultAsync(row => row.Name == name, cancellationToken);
        caller.Named = before?.Name;
        var verified = await passwords.VerifyAsync(password, before?.Password, cancellationToken);
        if (verified.Failure is { } busy)
        {
            return busy;
        }

        if (!verified.Value)
        {
            return AccountErrors.Refused;
        }

        var renewed = passwords.IsOutdated(before!.Password!) ? await passwords.HashAsync(password, cancellationToken) : (Result<string>?)null;
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var account = await database.Accounts.SingleOrDefaultAsync(row => row.Name == name, cancellationToken);
        var roles = await Sessions.RolesOfAsync(database, name, cancellationToken);
        if (account?.Password != before.Password || roles.Count == 0)
        {
            return AccountErrors.Refused; // changed in this moment, or nobody any more
        }

        var method = "password";
        if (account!.IsAuthenticatorConfirmed)
        {
            if (code is null)
            {
                await throttle.GiveBackAsync(name, forgets: false, cancellationToken);
                await transaction.CommitAsync(cancellationToken);
                return AccountErrors.CodeNeeded;
            }

            if (await UseCodeAsync(account, code, cancellationToken) is not { } used)
            {
                return AccountErrors.Refused;
            }

            method += used;
        }

        if (renewed is { Failure: null })
        {
            account.Password = renewed.Value.Value;
        }

        await throttle.GiveBackAsync(name, forgets: true, cancellationToken);
        var session = await sessions.BeginAsync(name, roles, method, isFederated: false, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return session;
    }

    public async Task<Account> GetAsync(CancellationToken cancellationToken)
    {
        var account = await OwnAsync(cancellationToken);
        return new Account(caller.Name, caller.RoleList, account?.Password is not null, account?.IsAuthenticatorConfirmed == true, account is null ? 0 : await database.RecoveryCodes.CountAsync(row => row.Person == account.Name, cancellationToken));
    }

    /// <summary>Changes the password, ends every session, and begins one.</summary>
    public async Task<Result<SignedIn>> ChangePasswordAsync(ChangePassword untrusted, CancellationToken cancellationToken)
    {
        if (Passwords.Unfit(untrusted.NewPassword, caller.Name) is { } unfit)
        {
            return unfit;
        }

        var confirmed = await ConfirmAsync(untrusted.Password, cancellationToken);
        if (confirmed.Failure is { } refused)
        {
            return refused;
        }

        var hash = await passwords.HashAsync(untrusted.NewPassword, cancellationToken);
        if (hash.Failure is { } busy)
        {
            return busy;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await StillAsync(confirmed.Value, cancellationToken) is not { } account)
        {
            return AccountErrors.Refused;
        }

        account.Password = hash.Value;
        await Sessions.EndAllAsync(database, account.Name, cancellationToken);
        await audit.AppendAsync(caller.Actor!, "account.password", account.Name, "changed", cancellationToken);
        var session = await sessions.BeginAsync(account.Name, caller.RoleList, "password", isFederated: false, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return session;
    }

    /// <summary>Makes an authenticator's secret. It is asked for once a code of it was shown.</summary>
    public Task<Result<AuthenticatorSecret>> BeginAuthenticatorAsync(ConfirmPassword untrusted, CancellationToken cancellationToken) => ConfirmedAsync<AuthenticatorSecret>(untrusted, async account =>
    {
        if (account.IsAuthenticatorConfirmed)
        {
            return AccountErrors.AuthenticatorThere;
        }

        var secret = RandomNumberGenerator.GetBytes(20);
        account.Authenticator = secrets.Protect(secret, "authenticator", account.Name);
        await audit.AppendAsync(caller.Actor!, "account.authenticator", account.Name, "begun", cancellationToken);
        return new AuthenticatorSecret(Base32Encoding.ToString(secret).TrimEnd('='), new OtpUri(OtpType.Totp, secret, account.Name, Issuer).ToString());
    }, cancellationToken);

    /// <summary>Takes the first code of the authenticator, which is asked for from now on, and makes recovery codes.</summary>
    public async Task<Result<RecoveryCodes>> ConfirmAuthenticatorAsync(ConfirmAuthenticator untrusted, CancellationToken cancellationToken)
    {
        if (await throttle.TakeAsync(caller.Name, cancellationToken) is { } tooMany)
        {
            return tooMany;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await OwnAsync(cancellationToken) is not { Authenticator: not null } account)
        {
            return AccountErrors.NoAuthenticator;
        }

        if (account.IsAuthenticatorConfirmed)
        {
            return AccountErrors.AuthenticatorThere;
        }

        if (!TryAuthenticator(account, untrusted.Code ?? ""))
        {
            return AccountErrors.CodeWrong;
        }

        account.IsAuthenticatorConfirmed = true;
        var codes = await MakeRecoveryCodesAsync(account, cancellationToken);
        await throttle.GiveBackAsync(caller.Name, forgets: false, cancellationToken);
        await audit.AppendAsync(caller.Actor!, "account.authenticator", account.Name, "enabled", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return codes;
    }

    public Task<Result<Done>> DisableAuthenticatorAsync(ConfirmPassword untrusted, CancellationToken cancellationToken) => ConfirmedAsync<Done>(untrusted, async account =>
    {
        if (account.Authenticator is null)
        {
            return AccountErrors.NoAuthenticator;
        }

        await RemoveSecondFactorAsync(account, cancellationToken);
        await audit.AppendAsync(caller.Actor!, "account.authenticator", account.Name, "disabled", cancellationToken);
        return default(Done);
    }, cancellationToken);

    /// <summary>Makes new recovery codes; those before are void.</summary>
    public Task<Result<RecoveryCodes>> RenewRecoveryCodesAsync(ConfirmPassword untrusted, CancellationToken cancellationToken) => ConfirmedAsync<RecoveryCodes>(untrusted, async account =>
    {
        if (!account.IsAuthenticatorConfirmed)
        {
            return AccountErrors.NoAuthenticator;
        }

        var codes = await MakeRecoveryCodesAsync(account, cancellationToken);
        await audit.AppendAsync(caller.Actor!, "account.recovery-codes", account.Name, "", cancellationToken);
        return codes;
    }, cancellationToken);

    /// <summary>Makes an invitation with which a person chooses a password; the one before is void.</summary>
    public async Task<Result<Invitation>> InviteAsync(string untrustedName, CreateInvitation untrusted, CancellationToken cancellationToken)
    {
        var life = untrusted.Seconds is { } seconds and >= 0 and <= int.MaxValue ? TimeSpan.FromSeconds(seconds) : untrusted.Seconds is null ? InvitationLife : TimeSpan.Zero;
        if (life < ShortestInvitation || life > LongestInvitation)
        {
            return new Failure(ErrorCatalogue.RequestInvalid, "an invitation must last between a minute and 30 days");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await CheckPersonAsync(untrustedName, cancellationToken) is { } refused)
        {
            return refused;
        }

        var account = await database.Accounts.SingleOrDefaultAsync(row => row.Name == untrustedName, cancellationToken);
        if (account is null)
        {
            account = new AccountRow { Name = untrustedName };
            database.Accounts.Add(account);
        }

        var code = Code(RandomNumberGenerator.GetBytes(20));
        (account.InvitationHash, account.InvitationExpiresAt, account.InvitationRemovesSecondFactor) = (Hash(code), time.Now() + life, untrusted.RemovesSecondFactor);
        await audit.AppendAsync(caller.Actor!, "person.invite", account.Name, untrusted.RemovesSecondFactor ? "removes the second factor" : "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return new Invitation(account.Name, code, account.InvitationExpiresAt.Value);
    }

    /// <summary>Sets the password that the invited person chose, and ends every session of before.</summary>
    public async Task<Result<AcceptedInvitation>> AcceptAsync(AcceptInvitation untrusted, CancellationToken cancellationToken)
    {
        var hash = Hash(untrusted.Code ?? "");
        var now = time.Now();
        if (await database.Accounts.AsNoTracking().SingleOrDefaultAsync(row => row.InvitationHash == hash, cancellationToken) is not { } invited || now >= invited.InvitationExpiresAt)
        {
            return AccountErrors.InvitationWrong;
        }

        if (Passwords.Unfit(untrusted.Password, invited.Name) is { } unfit)
        {
            return unfit;
        }

        var password = await passwords.HashAsync(untrusted.Password, cancellationToken);
        if (password.Failure is { } busy)
        {
            return busy;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.Accounts.SingleOrDefaultAsync(row => row.InvitationHash == hash, cancellationToken) is not { } account)
        {
            return AccountErrors.InvitationWrong; // used in this moment
        }

        if (account.InvitationRemovesSecondFactor)
        {
            await RemoveSecondFactorAsync(account, cancellationToken);
        }

        (account.Password, account.InvitationHash, account.InvitationExpiresAt) = (password.Value, null, null);
        await Sessions.EndAllAsync(database, account.Name, cancellationToken);
        await throttle.ForgetAsync(account.Name, cancellationToken);
        await audit.AppendAsync($"person:{account.Name}", "account.password", account.Name, "by invitation", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return new AcceptedInvitation(account.Name);
    }

    /// <summary>Takes the way to sign in from a person: password, authenticator, invitation and every session.</summary>
    public async Task<Result<Done>> RemoveAsync(string untrustedName, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await CheckPersonAsync(untrustedName, cancellationToken) is { } refused)
        {
            return refused;
        }

        await RemoveInTransactionAsync(untrustedName, cancellationToken);
        await audit.AppendAsync(caller.Actor!, "person.block", untrustedName, "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    public async Task RemoveInTransactionAsync(string name, CancellationToken cancellationToken)
    {
        await Sessions.EndAllAsync(database, name, cancellationToken);
        await database.RecoveryCodes.Where(row => row.Person == name).ExecuteDeleteAsync(cancellationToken);
        await database.Accounts.Where(row => row.Name == name).ExecuteDeleteAsync(cancellationToken);
    }

    public async Task<IReadOnlyList<Person>> ListAsync(CancellationToken cancellationToken)
    {
        var users = await database.Users.AsNoTracking().Select(row => row.Name).ToListAsync(cancellationToken);
        var administrators = await database.Administrators.AsNoTracking().ToDictionaryAsync(row => row.Name, cancellationToken);
        var federated = await database.Federated.AsNoTracking().ToDictionaryAsync(row => row.Name, cancellationToken);
        var accounts = await database.Accounts.AsNoTracking().ToDictionaryAsync(row => row.Name, cancellationToken);
        var now = time.Now();
        var idle = now - Sessions.IdleLife;
        var open = await database.Sessions.Where(row => row.ExpiresAt > now && row.LastUsedAt > idle).GroupBy(row => row.Person).Select(group => new { group.Key, Count = group.Count() }).ToDictionaryAsync(row => row.Key, row => row.Count, cancellationToken);
        return [.. users.Concat(administrators.Keys).Concat(federated.Keys).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal).Select(name =>
        {
            var account = accounts.GetValueOrDefault(name);
            IEnumerable<string> roles = [.. administrators.GetValueOrDefault(name)?.RoleList ?? [], .. federated.GetValueOrDefault(name)?.RoleList ?? [], .. users.Contains(name) ? [Roles.User] : Array.Empty<string>()];
            return new Person(
                name, [.. Roles.People.Where(roles.Contains)], account?.Password is not null, account?.IsAuthenticatorConfirmed == true,
                account?.InvitationExpiresAt > now, federated.ContainsKey(name), open.GetValueOrDefault(name));
        })];
    }

    public async Task SweepAsync(CancellationToken cancellationToken)
    {
        var now = time.Now();
        await database.Accounts.Where(row => row.InvitationExpiresAt <= now)
            .ExecuteUpdateAsync(update => update.SetProperty(row => row.InvitationHash, (byte[]?)null).SetProperty(row => row.InvitationExpiresAt, (DateTimeOffset?)null), cancellationToken);
    }

    /// <summary>Whether there is such a person, and whether who calls may do something to it.</summary>
    private async Task<Failure?> CheckPersonAsync(string untrustedName, CancellationToken cancellationToken)
    {
        var federated = await database.Federated.AsNoTracking().SingleOrDefaultAsync(row => row.Name == untrustedName, cancellationToken);
        IReadOnlyList<string> roles = [.. await Sessions.RolesOfAsync(database, untrustedName, cancellationToken), .. federated?.RoleList ?? []];
        return roles.Count == 0 || untrustedName == Roles.Administrator ? AccountErrors.NoPerson(untrustedName)
            : !caller.IsFirst && roles.Any(PeopleRoles.Staff.Contains) ? AccountErrors.StaffIsTheFirsts : null;
    }

    /// <summary>The caller's account; null: it has none here, or signed in elsewhere.</summary>
    private async Task<AccountRow?> OwnAsync(CancellationToken cancellationToken) => caller.Session is { } id
        && await database.Sessions.AnyAsync(row => row.Id == id && !row.IsFederated, cancellationToken) ? await database.Accounts.SingleOrDefaultAsync(row => row.Name == caller.Name, cancellationToken) : null;

    /// <summary>Proves the password once more; guesses count as those at signing in do.</summary>
    /// <returns>The hash that it fits.</returns>
    private async Task<Result<string>> ConfirmAsync(string? untrustedPassword, CancellationToken cancellationToken)
    {
        if (await OwnAsync(cancellationToken) is not { Password: { } stored })
        {
            return AccountErrors.NoPassword;
        }

        database.ChangeTracker.Clear();
        if (await throttle.TakeAsync(caller.Name, cancellationToken) is { } tooMany)
        {
            return tooMany;
        }

        var verified = await passwords.VerifyAsync(untrustedPassword ?? "", stored, cancellationToken);
        if (verified.Failure is { } busy)
        {
            return busy;
        }

        if (!verified.Value)
        {
            return AccountErrors.Refused;
        }

        database.ChangeTracker.Clear();
        return stored;
    }

    /// <summary>The caller's account under the writers' lock, where the password is still the one that was confirmed.</summary>
    private async Task<AccountRow?> StillAsync(string stored, CancellationToken cancellationToken)
    {
        if (await OwnAsync(cancellationToken) is not { } account || account.Password != stored)
        {
            return null;
        }

        await throttle.GiveBackAsync(account.Name, forgets: false, cancellationToken);
        return account;
    }

    private async Task<Result<T>> ConfirmedAsync<T>(ConfirmPassword untrusted, Func<AccountRow, Task<Result<T>>> act, CancellationToken cancellationToken)
        where T : notnull
    {
        var confirmed = await ConfirmAsync(untrusted.Password, cancellationToken);
        if (confirmed.Failure is { } refused)
        {
            return refused;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await StillAsync(confirmed.Value, cancellationToken) is not { } account)
        {
            return AccountErrors.Refused;
        }

        var result = await act(account);
        if (result.Failure is null)
        {
            await database.SaveChangesAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }

        return result;
    }

    /// <summary>Uses a code of the authenticator or a recovery code.</summary>
    /// <returns>Which, in words; null: it is none.</returns>
    private async Task<string?> UseCodeAsync(AccountRow account, string untrustedCode, CancellationToken cancellationToken)
    {
        if (TryAuthenticator(account, untrustedCode))
        {
            return " and authenticator";
        }

        var hash = Hash(untrustedCode);
        return await database.RecoveryCodes.Where(row => row.Person == account.Name && row.Hash == hash).ExecuteDeleteAsync(cancellationToken) == 1 ? " and recovery code" : null;
    }

    /// <summary>Whether it is a code of now, 30 seconds ago or in 30 seconds, newer than any that was used; then it and those before it are void.</summary>
    private bool TryAuthenticator(AccountRow account, string untrustedCode)
    {
        var secret = secrets.Reveal(account.Authenticator!, "authenticator", account.Name);
        try
        {
            if (untrustedCode.Length != 6 || !new Totp(secret).VerifyTotp(time.GetUtcNow().UtcDateTime, untrustedCode, out var step, new VerificationWindow(1, 1)) || step <= account.LastAuthenticatorStep)
            {
                return false;
            }

            account.LastAuthenticatorStep = step;
            return true;
        }
        finally
        {
            CryptographicOperations.ZeroMemory(secret);
        }
    }

    private async Task<RecoveryCodes> MakeRecoveryCodesAsync(AccountRow account, CancellationToken cancellationToken)
    {
        await database.RecoveryCodes.Where(row => row.Person == account.Name).ExecuteDeleteAsync(cancellationToken);
        string[] codes = [.. Enumerable.Range(0, RecoveryCodeCount).Select(_ => Code(RandomNumberGenerator.GetBytes(10)))];
        database.RecoveryCodes.AddRange(codes.Select(code => new RecoveryCodeRow { Person = account.Name, Hash = Hash(code) }));
        return new RecoveryCodes(codes);
    }

    private async Task RemoveSecondFactorAsync(AccountRow account, CancellationToken cancellationToken)
    {
        (account.Authenticator, account.IsAuthenticatorConfirmed) = (null, false);
        await database.RecoveryCodes.Where(row => row.Person == account.Name).ExecuteDeleteAsync(cancellationToken);
    }

    /// <summary>In base 32, in fours; in capitals, so that none can be a name, which is shown where it was typed.</summary>
    private static string Code(byte[] random) => string.Join('-', Base32Encoding.ToString(random).Chunk(4).Select(four => new string(four)));

    private static byte[] Hash(string code) => SHA256.HashData(Encoding.UTF8.GetBytes(code.Trim().ToLowerInvariant().Replace("-", "", StringComparison.Ordinal)));
}

/// <summary>Clears what has ended every hour.</summary>
internal sealed class PeopleSweeper(IServiceScopeFactory scopes, TimeProvider time, ILogger<PeopleSweeper> logger) : BackgroundService
{
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromHours(1), time);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            try
            {
                await using var scope = scopes.CreateAsyncScope();
                await scope.ServiceProvider.GetRequiredService<Sessions>().SweepAsync(stoppingToken);
                await scope.ServiceProvider.GetRequiredService<Accounts>().SweepAsync(stoppingToken);
                await scope.ServiceProvider.GetRequiredService<Throttle>().SweepAsync(stoppingToken);
                await scope.ServiceProvider.GetRequiredService<OpenId>().SweepAsync(stoppingToken);
            }
#pragma warning disable CA1031 // The next hour is the next chance.
            catch (Exception exception) when (exception is not OperationCanceledException)
#pragma warning restore CA1031
            {
                logger.PeopleNotCleared(exception);
            }
        }
    }
}
