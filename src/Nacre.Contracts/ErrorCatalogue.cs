using System.Reflection;

namespace Nacre.Contracts;

/// <summary>The command line's exit codes; part of its interface (docs/cli.md).</summary>
public enum ExitCode
{
    /// <summary>Done.</summary>
    Success = 0,

    /// <summary>A bug or an outage that no other code describes.</summary>
    Failure = 1,

    /// <summary>The command line itself is wrong.</summary>
    Usage = 2,

    /// <summary>An input (recipe, code, name) was refused.</summary>
    Refused = 3,

    /// <summary>The server or origin can't be reached, or the answer stopped half-way.</summary>
    Unreachable = 4,

    /// <summary>Something is not authentic: changed, truncated, or signed by a key that is not trusted.</summary>
    NotAuthentic = 5,

    /// <summary>This computer lacks something: a program, disk space, a free port, a permission.</summary>
    Environment = 6,

    /// <summary>What was named does not exist, or is not in the state that the command needs.</summary>
    State = 7,

    /// <summary>Not permitted: no lease, not entitled, wrong token.</summary>
    Denied = 8,

    /// <summary>Nothing was changed, because a person has to choose first.</summary>
    Choice = 9,

    /// <summary>Interrupted by Ctrl-C.</summary>
    Cancelled = 130,
}

/// <summary>One kind of error: a code that never changes, what it means over HTTP and for a script, and what a person can do.</summary>
/// <param name="Code">The stable, machine-readable code: the only thing programs decide by.</param>
/// <param name="HttpStatus">Status of a response that carries it.</param>
/// <param name="ExitCode">Exit code of a command that ends with it.</param>
/// <param name="Hint">What to do, in one sentence.</param>
public sealed record ErrorKind(string Code, int HttpStatus, ExitCode ExitCode, string Hint);

/// <summary>Every error that Nacre reports, in one place.</summary>
public static class ErrorCatalogue
{
    // What was sent
    /// <summary>A request or its fields are not as the API describes.</summary>
    public static readonly ErrorKind RequestInvalid = new("E_REQUEST_INVALID", 400, ExitCode.Refused, "compare the request with the API description at /openapi/v1.json");
    /// <summary>A name has characters that names do not have.</summary>
    public static readonly ErrorKind NameInvalid = new("E_NAME_INVALID", 400, ExitCode.Refused, "use 1 to 63 lower-case letters, digits and hyphens, beginning with a letter");
    /// <summary>A command was used with a combination of arguments that makes no sense.</summary>
    public static readonly ErrorKind UsageInvalid = new("E_USAGE", 400, ExitCode.Usage, "see 'nacre COMMAND --help'");

    // Who asks
    /// <summary>No credential, or one that is not valid.</summary>
    public static readonly ErrorKind Unauthenticated = new("E_UNAUTHENTICATED", 401, ExitCode.Denied, "people: 'nacre sign-in URL', or 'nacre login URL' with a token; devices: 'nacre device enrol URL CODE'");
    /// <summary>The device's clock and the server's are too far apart.</summary>
    public static readonly ErrorKind ClockWrong = new("E_CLOCK_WRONG", 401, ExitCode.Environment, "set this computer's clock; the server's time is named above");
    /// <summary>The credential does not permit this.</summary>
    public static readonly ErrorKind Forbidden = new("E_FORBIDDEN", 403, ExitCode.Denied, "ask an administrator");
    /// <summary>The device's user is not entitled to the LivePC.</summary>
    public static readonly ErrorKind NotEntitled = new("E_NOT_ENTITLED", 403, ExitCode.Denied, "ask the administrator to entitle you: 'nacre livepc entitle LIVEPC USER'");
    /// <summary>The device was revoked.</summary>
    public static readonly ErrorKind DeviceRevoked = new("E_DEVICE_REVOKED", 403, ExitCode.Denied, "ask the administrator for a new enrolment code");

    /// <summary>The device showed no certificate in TLS, or one that does not count.</summary>
    public static readonly ErrorKind CertificateRefused = new("E_CERTIFICATE_REFUSED", 401, ExitCode.Denied, "'nacre device renew' fetches a new certificate for this device");
    /// <summary>The device enrolled and is not approved yet.</summary>
    public static readonly ErrorKind DeviceWaiting = new("E_DEVICE_WAITING", 403, ExitCode.Denied, "ask the administrator to approve this device: 'nacre device approve ID'");
    /// <summary>The device is approved already, or was never to be.</summary>
    public static readonly ErrorKind DeviceNotWaiting = new("E_DEVICE_NOT_WAITING", 409, ExitCode.State, "'nacre device list' shows each device's state; 'nacre device revoke' takes the permission of one away");

    // Enrolment
    /// <summary>No such enrolment code.</summary>
    public static readonly ErrorKind EnrolmentCodeWrong = new("E_ENROLMENT_CODE_WRONG", 404, ExitCode.Refused, "compare the code with the one you were given, or ask for a new one");
    /// <summary>The code's time is over.</summary>
    public static readonly ErrorKind EnrolmentCodeExpired = new("E_ENROLMENT_CODE_EXPIRED", 410, ExitCode.Refused, "ask the administrator for a new code: 'nacre device code USER'");
    /// <summary>The code has been used.</summary>
    public static readonly ErrorKind EnrolmentCodeUsed = new("E_ENROLMENT_CODE_USED", 409, ExitCode.Refused, "each code enrols one device: ask for a new one");
    /// <summary>The server did not prove that it knows the code, or its certificate is not one that is believed.</summary>
    public static readonly ErrorKind ServerNotAuthentic = new("E_SERVER_NOT_AUTHENTIC", 502, ExitCode.NotAuthentic, "check the URL: something between this device and the server changes what they say");
    /// <summary>This device is enrolled already.</summary>
    public static readonly ErrorKind AlreadyEnrolled = new("E_ALREADY_ENROLLED", 409, ExitCode.State, "'nacre device forget' first, if this device is to belong to another server");
    /// <summary>The user has as many devices as the policy allows.</summary>
    public static readonly ErrorKind TooManyDevices = new("E_TOO_MANY_DEVICES", 403, ExitCode.Denied, "ask the administrator to revoke a device that is not used any more ('nacre device list', 'nacre device revoke'), or to raise 'maxDevicesPerUser'");
    /// <summary>The device's key is in another computer's TPM.</summary>
    public static readonly ErrorKind DeviceKeyElsewhere = new("E_DEVICE_KEY_ELSEWHERE", 409, ExitCode.Denied, "use the computer that enrolled; to use this one, empty its NACRE_HOME and enrol it with a code of its own");
    /// <summary>This device is not enrolled.</summary>
    public static readonly ErrorKind NotEnrolled = new("E_NOT_ENROLLED", 409, ExitCode.State, "'nacre device enrol URL CODE' with the code that the administrator gave you");
    /// <summary>This command line is not logged in to a server.</summary>
    public static readonly ErrorKind NotLoggedIn = new("E_NOT_LOGGED_IN", 401, ExitCode.State, "'nacre sign-in URL', or 'nacre login URL --token-file FILE' with the token that the server made at its first start");


    /// <summary>The name, the password or the code is not right.</summary>
    public static readonly ErrorKind SignInRefused = new("E_SIGN_IN_REFUSED", 401, ExitCode.Denied, "check the name, the password and the code; who has lost them asks the help desk for an invitation ('nacre user invite')");
    /// <summary>The password is right, and a code is needed too.</summary>
    public static readonly ErrorKind SecondFactorNeeded = new("E_SECOND_FACTOR_NEEDED", 401, ExitCode.Denied, "sign in again with '--code' and what the authenticator shows, or one of the recovery codes");
    /// <summary>Too many tries to sign in.</summary>
    public static readonly ErrorKind TooManyTries = new("E_TOO_MANY_TRIES", 429, ExitCode.Denied, "wait as long as it says above; more tries make it no longer");
    /// <summary>The session's time is over, or it was ended.</summary>
    public static readonly ErrorKind SessionEnded = new("E_SESSION_ENDED", 401, ExitCode.Denied, "'nacre sign-in' again");
    /// <summary>An invitation that is not known, was used, replaced or has expired.</summary>
    public static readonly ErrorKind InvitationWrong = new("E_INVITATION_WRONG", 403, ExitCode.Refused, "ask who sent it for another one: each works once, until it expires or the next one is made");
    /// <summary>A password that can't be one.</summary>
    public static readonly ErrorKind PasswordUnfit = new("E_PASSWORD_UNFIT", 400, ExitCode.Refused, "choose one of 12 to 256 characters that does not contain your name; several words are easier to remember than signs");
    /// <summary>Who asks has no password here.</summary>
    public static readonly ErrorKind NoPassword = new("E_NO_PASSWORD", 409, ExitCode.State, "sign in with name and password; the first administrator's token, other tokens and OpenID Connect have no password here");
    /// <summary>No OpenID provider is set.</summary>
    public static readonly ErrorKind ProviderMissing = new("E_PROVIDER_MISSING", 409, ExitCode.State, "the first administrator sets one: 'nacre oidc set'");
    /// <summary>The OpenID provider does not answer as OpenID Connect says.</summary>
    public static readonly ErrorKind ProviderFailed = new("E_PROVIDER_FAILED", 502, ExitCode.Unreachable, "check the provider's address, the client's name and secret there, and that the server reaches it ('nacre oidc show')");

    // What is there
    /// <summary>Nothing of that name.</summary>
    public static readonly ErrorKind NotFound = new("E_NOT_FOUND", 404, ExitCode.State, "list what there is with the command's 'list'");
    /// <summary>The name is taken.</summary>
    public static readonly ErrorKind AlreadyExists = new("E_ALREADY_EXISTS", 409, ExitCode.State, "choose another name");
    /// <summary>An immutable thing was to be changed.</summary>
    public static readonly ErrorKind Immutable = new("E_IMMUTABLE", 409, ExitCode.State, "publish a new release instead");
    /// <summary>The release names segments that the store lacks.</summary>
    public static readonly ErrorKind SegmentsMissing = new("E_SEGMENTS_MISSING", 409, ExitCode.State, "run 'nacre image publish' again: it uploads what is missing");
    /// <summary>A segment's bytes are not what the sender announced.</summary>
    public static readonly ErrorKind DigestMismatch = new("E_DIGEST_MISMATCH", 400, ExitCode.NotAuthentic, "send it again: it was changed on the way");
    /// <summary>More bytes than the limit allows.</summary>
    public static readonly ErrorKind TooLarge = new("E_TOO_LARGE", 413, ExitCode.Refused, "see the limits in docs/operations.md");
    /// <summary>The store lacks segments that releases need, or has damaged ones.</summary>
    public static readonly ErrorKind StoreDamaged = new("E_STORE_DAMAGED", 500, ExitCode.NotAuthentic, "'nacre store check --repair FOLDER' puts back what a replica or a backup has; what none has is gone: publish the image again and move its channels");
    /// <summary>A channel has no release yet.</summary>
    public static readonly ErrorKind ChannelEmpty = new("E_CHANNEL_EMPTY", 409, ExitCode.State, "the administrator publishes one: 'nacre image publish FOLDER --channel CHANNEL'");

    /// <summary>A release has not passed the checks, or not been approved, as the policy wants before a channel points at it.</summary>
    public static readonly ErrorKind NotApproved = new("E_NOT_APPROVED", 409, ExitCode.State, "'nacre image show IMAGE RELEASE' says what it has and lacks; 'nacre image policy' what it needs");
    /// <summary>A check found something that stops a release.</summary>
    public static readonly ErrorKind CheckFailed = new("E_CHECK_FAILED", 422, ExitCode.Refused, "put right what the checks named above found, and build the image again");

    /// <summary>Application layers do not go together.</summary>
    public static readonly ErrorKind LayersIncompatible = new("E_LAYERS_INCOMPATIBLE", 409, ExitCode.State, "build one of the layers again under another name: a layer's name decides which numbers its accounts get");
    /// <summary>The corporate layers on offer did not reach a healthy start on this device.</summary>
    public static readonly ErrorKind StackSetAside = new("E_SET_ASIDE", 409, ExitCode.State, "'nacre livepc update LIVEPC --retry' takes them again; newer ones are taken without it");

    // Trust
    /// <summary>Nobody who may sign releases of the image vouches for this one.</summary>
    public static readonly ErrorKind ReleaseNotAuthentic = new("E_RELEASE_NOT_AUTHENTIC", 422, ExitCode.NotAuthentic, "do not use this release: ask the administrator who signed it; what is installed stays as it was");
    /// <summary>Trust metadata is not signed by enough of the keys that count, or older than what was trusted, or not what belongs together.</summary>
    public static readonly ErrorKind TrustNotAuthentic = new("E_TRUST_NOT_AUTHENTIC", 422, ExitCode.NotAuthentic, "take nothing new from this server: tell the administrator; what is installed goes on starting");
    /// <summary>Trust metadata has ended, so it can't be told whether it is the newest.</summary>
    public static readonly ErrorKind TrustExpired = new("E_TRUST_EXPIRED", 409, ExitCode.NotAuthentic, "check this computer's clock, then ask the administrator for 'nacre trust status'; what is installed goes on starting within its lease");
    /// <summary>The organisation has no trust root yet.</summary>
    public static readonly ErrorKind TrustMissing = new("E_TRUST_MISSING", 409, ExitCode.State, "'nacre trust init' on the administrator's computer begins it; publishing an image and 'nacre device code' do so too");
    /// <summary>A lease's signature or binding is wrong.</summary>
    public static readonly ErrorKind LeaseNotAuthentic = new("E_LEASE_NOT_AUTHENTIC", 422, ExitCode.NotAuthentic, "connect to the server for a new lease; if that fails too, ask the administrator");
    /// <summary>The lease's time is over.</summary>
    public static readonly ErrorKind LeaseExpired = new("E_LEASE_EXPIRED", 403, ExitCode.Denied, "connect to the server once: the lease renews by itself; without a network 'nacre livepc extend LIVEPC' shows what to read to the help desk");
    /// <summary>The time for which the LivePC was meant is over, or has not begun.</summary>
    public static readonly ErrorKind LivePcExpired = new("E_LIVEPC_EXPIRED", 403, ExitCode.Denied, "ask the administrator: the policy's 'expiration' settings decide it");
    /// <summary>The policy lets the LivePC start only with the server.</summary>
    public static readonly ErrorKind OfflineDenied = new("E_OFFLINE_DENIED", 403, ExitCode.Denied, "connect to the server, and start it again");
    /// <summary>This computer's clock was set back.</summary>
    public static readonly ErrorKind ClockSetBack = new("E_CLOCK_SET_BACK", 403, ExitCode.Denied, "set this computer's clock right and connect to the server once: it proves the time");
    /// <summary>A code that extends a lease is not the one for this device now, or none is taken.</summary>
    public static readonly ErrorKind ExtensionRefused = new("E_EXTENSION_REFUSED", 403, ExitCode.Denied, "compare the code with what the help desk reads; each code works once, for one device and LivePC");
    /// <summary>The LivePC was killed on this device.</summary>
    public static readonly ErrorKind LivePcKilled = new("E_KILLED", 403, ExitCode.Denied, "what it held is gone; ask the administrator whether you may have a new, empty one ('nacre kill lift')");
    /// <summary>A device's receipt is not its own, or of another order.</summary>
    public static readonly ErrorKind ReceiptNotAuthentic = new("E_RECEIPT_NOT_AUTHENTIC", 422, ExitCode.NotAuthentic, "take the order as not carried out, and ask who sent this");
    /// <summary>Bytes of a segment fail their authentication or are missing.</summary>
    public static readonly ErrorKind SegmentNotAuthentic = new("E_SEGMENT_NOT_AUTHENTIC", 502, ExitCode.NotAuthentic, "the origin serves damaged data: tell the administrator; nothing damaged was used, start again when it is mended");
    /// <summary>The origin sends less than a segment has.</summary>
    public static readonly ErrorKind SegmentTruncated = new("E_SEGMENT_TRUNCATED", 502, ExitCode.NotAuthentic, "the origin serves a truncated segment: tell the administrator, who can upload it again with 'nacre image publish'");
    /// <summary>A format or feature of a newer version.</summary>
    public static readonly ErrorKind Unsupported = new("E_UNSUPPORTED", 501, ExitCode.State, "update nacre on this computer");

    /// <summary>A policy has settings that there are not, or values that they do not take.</summary>
    public static readonly ErrorKind PolicyInvalid = new("E_POLICY_INVALID", 400, ExitCode.Refused, "correct the settings named above; docs/policies.md and 'nacre policy schema' describe every one");

    // Recipes and images
    /// <summary>A recipe has errors.</summary>
    public static readonly ErrorKind RecipeInvalid = new("E_RECIPE_INVALID", 400, ExitCode.Refused, "correct the lines named above; docs/recipes.md describes every key");
    /// <summary>The build failed.</summary>
    public static readonly ErrorKind BuildFailed = new("E_BUILD_FAILED", 500, ExitCode.Failure, "the log named above has the whole story");
    /// <summary>The folder is not a built golden image.</summary>
    public static readonly ErrorKind NotAnImage = new("E_NOT_AN_IMAGE", 400, ExitCode.Refused, "give the folder that 'nacre image build' or 'nacre image import' made");

    /// <summary>A file is not a whole disk that could be imported.</summary>
    public static readonly ErrorKind NotADisk = new("E_NOT_A_DISK", 400, ExitCode.Refused, "give one file that holds the whole disk: raw, qcow2, vmdk, vhd, vhdx, vdi or ova");

    // This computer
    /// <summary>A program is not installed.</summary>
    public static readonly ErrorKind ProgramMissing = new("E_PROGRAM_MISSING", 500, ExitCode.Environment, "install the package named above");
    /// <summary>The disk is full.</summary>
    public static readonly ErrorKind NoSpace = new("E_NO_SPACE", 507, ExitCode.Environment, "free some space and run the command again: nothing was lost");
    /// <summary>An address is in use.</summary>
    public static readonly ErrorKind AddressInUse = new("E_ADDRESS_IN_USE", 500, ExitCode.Environment, "stop the other program, or choose another address with --listen");
    /// <summary>A file can't be read or written.</summary>
    public static readonly ErrorKind FileAccess = new("E_FILE_ACCESS", 500, ExitCode.Environment, "check that the file exists and who may use it");
    /// <summary>The forced accelerator does not work here.</summary>
    public static readonly ErrorKind AcceleratorUnusable = new("E_ACCELERATOR_UNUSABLE", 500, ExitCode.Environment, "unset NACRE_ACCEL to let the player choose");
    /// <summary>A volume can't be opened.</summary>
    public static readonly ErrorKind VolumeDamaged = new("E_VOLUME_DAMAGED", 500, ExitCode.NotAuthentic, "do not delete anything: ask the help desk");
    /// <summary>The key opens no key slot of the volume.</summary>
    public static readonly ErrorKind VolumeKeyWrong = new("E_VOLUME_KEY_WRONG", 403, ExitCode.Denied, "give the file with the key that the volume was made with");
    /// <summary>A volume is older than a state of it that is known.</summary>
    public static readonly ErrorKind VolumeOutdated = new("E_VOLUME_OUTDATED", 409, ExitCode.NotAuthentic, "put the newest copy of the layer's folder back in its place; where the older one is meant, 'nacre livepc start LIVEPC --accept-older-state' takes it");
    /// <summary>A password is needed, and none was given.</summary>
    public static readonly ErrorKind PasswordNeeded = new("E_PASSWORD_NEEDED", 401, ExitCode.Denied, "run the command in a terminal, which asks for it, or give it in a file (--password-file) or in NACRE_PASSWORD");
    /// <summary>The password, or the recovery code, is another.</summary>
    public static readonly ErrorKind PasswordWrong = new("E_PASSWORD_WRONG", 401, ExitCode.Denied, "type it again; who has forgotten it asks the help desk for a recovery code: 'nacre livepc password LIVEPC --recovery'");
    /// <summary>A new password has to be chosen first.</summary>
    public static readonly ErrorKind PasswordUnset = new("E_PASSWORD_UNSET", 409, ExitCode.Denied, "choose one: 'nacre livepc password LIVEPC' in a terminal, or with --new-password-file; 'nacre livepc start' asks for it too");
    /// <summary>A new password is not as policy wants it.</summary>
    public static readonly ErrorKind PasswordWeak = new("E_PASSWORD_WEAK", 400, ExitCode.Refused, "choose another one; several words are easier to remember and harder to guess than one with odd characters");
    /// <summary>It is too early for another try.</summary>
    public static readonly ErrorKind PasswordWait = new("E_PASSWORD_WAIT", 429, ExitCode.Denied, "wait, then try again; who has forgotten the password asks the help desk for a recovery code");
    /// <summary>Too many wrong passwords were tried.</summary>
    public static readonly ErrorKind PasswordLocked = new("E_PASSWORD_LOCKED", 423, ExitCode.Denied, "ask the help desk for a recovery code, and use it with 'nacre livepc password LIVEPC --recovery'");
    /// <summary>A LivePC's keys were destroyed.</summary>
    public static readonly ErrorKind KeysDestroyed = new("E_KEYS_DESTROYED", 410, ExitCode.State, "what was in it can't be read any more; 'nacre livepc forget LIVEPC' removes what is left, and the next start begins anew");
    /// <summary>The organisation has no recovery code of a LivePC.</summary>
    public static readonly ErrorKind NoRecovery = new("E_NO_RECOVERY", 404, ExitCode.State, "'nacre recovery set FILE.pub' gives the organisation a recovery key; devices hand over a code at their next start with a network");
    /// <summary>Another process has the volume open.</summary>
    public static readonly ErrorKind VolumeBusy = new("E_VOLUME_BUSY", 409, ExitCode.State, "stop the LivePC or the other 'nacre volume' command that uses it");
    /// <summary>A snapshot's name is taken, or there is none of that name.</summary>
    public static readonly ErrorKind SnapshotName = new("E_SNAPSHOT_NAME", 409, ExitCode.State, "'nacre volume stat' lists the snapshots");

    // Running
    /// <summary>The audit log was changed or cut, or is not the one whose head was noted.</summary>
    public static readonly ErrorKind AuditNotAuthentic = new("E_AUDIT_NOT_AUTHENTIC", 409, ExitCode.NotAuthentic, "compare it with an export or a head that was kept elsewhere, and find out who could write to the database or the file");
    /// <summary>The server does not answer.</summary>
    public static readonly ErrorKind ServerUnreachable = new("E_SERVER_UNREACHABLE", 503, ExitCode.Unreachable, "check the network and the server's address, then try again");
    /// <summary>The organisation is on this server, and does not run there now.</summary>
    public static readonly ErrorKind OrganisationDown = new("E_ORGANISATION_DOWN", 503, ExitCode.Unreachable, "try again in a minute; the server's log says why it does not run");
    /// <summary>A request names another organisation than the connection it came by.</summary>
    public static readonly ErrorKind Misdirected = new("E_MISDIRECTED", 421, ExitCode.Refused, "open a connection of its own to each organisation's name");
    /// <summary>The server failed inside.</summary>
    public static readonly ErrorKind ServerFailed = new("E_SERVER_FAILED", 500, ExitCode.Failure, "the server's log has the reason under the trace id above");
    /// <summary>The server's database does not answer.</summary>
    public static readonly ErrorKind DatabaseUnreachable = new("E_DATABASE_UNREACHABLE", 503, ExitCode.Unreachable, "try again once PostgreSQL runs and the server's network reaches it; a server that runs goes on by itself then");
    /// <summary>The server's database lets the server not in, or not do what it must.</summary>
    public static readonly ErrorKind DatabaseRefused = new("E_DATABASE_REFUSED", 503, ExitCode.Denied, "check the connection string: user, password, database, certificate; the user must own the database (docs/operations.md)");
    /// <summary>The LivePC runs already.</summary>
    public static readonly ErrorKind AlreadyRunning = new("E_ALREADY_RUNNING", 409, ExitCode.State, "'nacre livepc console' shows it, 'nacre livepc stop' ends it");
    /// <summary>The LivePC does not run.</summary>
    public static readonly ErrorKind NotRunning = new("E_NOT_RUNNING", 409, ExitCode.State, "'nacre livepc start' first");
    /// <summary>New corporate layers can't carry packages that the user installed, and the user has not chosen what to do.</summary>
    public static readonly ErrorKind UserPackagesInTheWay = new("E_USER_PACKAGES", 409, ExitCode.Choice, "choose: '--user-packages remove' or '--user-packages reinstall', or remove the packages yourself in the LivePC; until then everything stays as it is");
    /// <summary>The LivePC stands still because its disks can't be written or read.</summary>
    public static readonly ErrorKind Paused = new("E_PAUSED", 409, ExitCode.State, "where this computer's disk is full, free some space: the LivePC goes on by itself, and nothing was lost");
    /// <summary>This computer is not as the policy wants it.</summary>
    public static readonly ErrorKind HostCheckFailed = new("E_HOST_CHECK", 403, ExitCode.Denied, "put right what is named above, then start again; 'nacre host check LIVEPC' looks again");
    /// <summary>The user has not agreed to the LivePC's terms of use.</summary>
    public static readonly ErrorKind TermsNotAccepted = new("E_TERMS_NOT_ACCEPTED", 403, ExitCode.Choice, "'nacre livepc terms LIVEPC' shows them, and with --accept agrees to them; 'nacre livepc start' asks in a terminal");
    /// <summary>The LivePC is locked.</summary>
    public static readonly ErrorKind Locked = new("E_LOCKED", 403, ExitCode.Denied, "put right what is named above: the LivePC goes on by itself, and nothing was lost");
    /// <summary>The guest did not start, or stopped by itself.</summary>
    public static readonly ErrorKind GuestFailed = new("E_GUEST_FAILED", 500, ExitCode.Failure, "the lines above are the last ones of the guest's console");
    /// <summary>A moment, or a file in it, can't be read or taken back.</summary>
    public static readonly ErrorKind MomentUnreadable = new("E_MOMENT_UNREADABLE", 500, ExitCode.Failure, "'nacre livepc snapshot browse' shows what the moment has; nothing was changed");
    /// <summary>The guest has no agent, and so nothing can be done inside it.</summary>
    public static readonly ErrorKind NoAgent = new("E_NO_AGENT", 409, ExitCode.State, "install qemu-guest-agent in the image; its screen works without: 'nacre livepc console'");
    /// <summary>QEMU refused to start.</summary>
    public static readonly ErrorKind QemuFailed = new("E_QEMU_FAILED", 500, ExitCode.Failure, "the lines above are QEMU's own words");
    /// <summary>Something took longer than it may.</summary>
    public static readonly ErrorKind TimedOut = new("E_TIMED_OUT", 504, ExitCode.Failure, "try again; a longer limit is an option of the command");
    /// <summary>Interrupted by the user.</summary>
    public static readonly ErrorKind Cancelled = new("E_CANCELLED", 499, ExitCode.Cancelled, "run the command again to continue where it stopped");
    /// <summary>A bug.</summary>
    public static readonly ErrorKind Internal = new("E_INTERNAL", 500, ExitCode.Failure, "this is a defect of nacre: please report it with the text above");

    /// <summary>Every kind, by code.</summary>
    public static IReadOnlyDictionary<string, ErrorKind> All { get; } = typeof(ErrorCatalogue)
        .GetFields(BindingFlags.Public | BindingFlags.Static)
        .Where(field => field.FieldType == typeof(ErrorKind))
        .Select(field => (ErrorKind)field.GetValue(null)!)
        .ToDictionary(kind => kind.Code);
}

/// <summary>An error that a person can act on. Anything else that is thrown is a bug.</summary>
public sealed class NacreException : Exception
{
    /// <summary>Creates the exception.</summary>
    /// <param name="kind">What went wrong, from the catalogue.</param>
    /// <param name="message">What happened and why: lower case, no full stop, no secret.</param>
    /// <param name="innerException">The cause, where there is one.</param>
    public NacreException(ErrorKind kind, string message, Exception? innerException = null)
        : base(message, innerException) => Kind = kind;

    /// <summary>What went wrong.</summary>
    public ErrorKind Kind { get; }
}
