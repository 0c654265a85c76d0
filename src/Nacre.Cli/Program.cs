using System.CommandLine;
using Nacre.Cli;
using Nacre.Cli.Commands;

var root = new RootCommand("Nacre: a company's desktop in an encrypted container on a computer that the company does not own.")
{
    ServerCommand.Create(),
    LoginCommand.Create(),
    SignInCommand.Create(),
    SignInCommand.CreateSignOut(),
    AccountCommands.Create(),
    AdministratorCommands.Create(),
    UserCommands.Create(),
    GroupCommands.Create(),
    OpenIdCommands.Create(),
    PolicyCommands.Create(),
    RolloutCommands.Create(),
    ImageCommands.Create(),
    StoreCommands.Create(),
    ReplicaCommands.Create(),
    TrustCommands.Create(),
    RecoveryCommands.Create(),
    AuditCommands.Create(),
    DeviceCommands.Create(),
    HostCommands.Create(),
    KillCommands.Create(),
    RevokeCommands.Create(),
    LeaseCommands.Create(),
    LivePcCommands.Create(),
    ExplainCommand.Create(),
    VolumeCommands.Create(),
    PlayerCommand.Create(),
};
root.Options.Add(Terminal.Json);
return await Terminal.RunAsync(root, args, Nacre.Player.LivePcs.LivePcPlayer.FinishErasureAsync);
