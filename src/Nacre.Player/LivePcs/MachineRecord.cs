using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;
using Nacre.Player.Machines;
using Nacre.Player.Stacks;

namespace Nacre.Player.LivePcs;

/// <summary>What a player has to know of a QEMU that another one started, to go on with it. Kept beside its sockets while it runs.</summary>
internal sealed record MachineRecord
{
    public required int ProcessId { get; init; }

    /// <summary>See <see cref="ProcessHandle.StartTime"/>.</summary>
    public required long StartTime { get; init; }

    /// <summary>The corporate layers that it runs.</summary>
    public required CorporateStack Stack { get; init; }

    /// <summary>Digest of their signed manifests.</summary>
    public required string Release { get; init; }

    /// <summary>What its image is made of.</summary>
    public required ImageKind Kind { get; init; }

    public required string Accelerator { get; init; }

    public required int Memory { get; init; }

    public required int Processors { get; init; }

    /// <summary>What it has of its host's devices.</summary>
    public MachineFeatures Features { get; init; } = new();

    /// <summary>Digest of everything else that the machine is made of: a newer player may make another one, which it can't go on with.</summary>
    public required string Shape { get; init; }

    /// <summary>The layers that the guest was told to format.</summary>
    public required IReadOnlyList<string> Fresh { get; init; }

    /// <summary>Whether nothing is kept of the user's layers.</summary>
    public bool IsDisposable { get; init; }

    /// <summary>Whether the system layer's own disk is one that is kept.</summary>
    public bool KeepsSystem { get; init; }

    /// <summary>Whether its agent has answered.</summary>
    public bool IsUp { get; init; }

    public static string DigestOf(IEnumerable<string> signedManifests) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(string.Join('\n', signedManifests))));

    /// <summary>The digest of a machine, whatever its release and what its parameters say: those are the guest's, read once when it starts.</summary>
    public static string ShapeOf(MachineOptions options) => Convert.ToHexStringLower(SHA256.HashData(
        Encoding.UTF8.GetBytes(string.Join('\0', Qemu.Arguments(options with
        {
            Kernel = "", Initramfs = "", CommandLine = "", Variables = options.Variables is null ? null : "", Parameters = [.. options.Parameters.Select(parameter => (parameter.Name, ""))],
        })))));
}
