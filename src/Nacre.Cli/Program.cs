using System.CommandLine;
using Nacre.Cli;
using Nacre.Cli.Commands;

var root = new RootCommand("Nacre: a company's desktop in an encrypted container on a computer that the company does not own.")
{
    ServerCommand.Create(),
    LoginCommand.Create(),
    AdministratorCommands.Create(),
    UserCommands.Create(),
    GroupCommands.Create(),
    PolicyCommands.Create(),
    RolloutCommands.Create(),
    ImageCommands.Create(),
    StoreCommands.Create(),
    ReplicaCommands.Create(),
    TrustCommands.Create(),
    AuditCommands.Create(),
    DeviceCommands.Create(),
    LivePcCommands.Create(),
    ExplainCommand.Create(),
    VolumeCommands.Create(),
    PlayerCommand.Create(),
};
root.Options.Add(Terminal.Json);
return await Terminal.RunAsync(root, args);
