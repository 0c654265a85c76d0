using Nacre.Contracts;
using Nacre.Player.LivePcs;

namespace Nacre.Player.Stacks;

/// <summary>Keeps a LivePC's <see cref="StackState"/> in a file: after a crash at any moment it is the old state or the new. A player and an update may change it at once.</summary>
internal sealed class StackBook(LivePcFolder folder, TimeProvider time)
{
    private string Path { get; } = System.IO.Path.Combine(folder.Root, "stacks.json");

    /// <summary>The state as it is now.</summary>
    public StackState Read() => DurableFile.ReadJson<StackState>(Path) ?? new StackState();

    /// <summary>Changes the state; durable on return.</summary>
    /// <exception cref="NacreException">FileAccess, NoSpace.</exception>
    public async Task<StackState> ChangeAsync(Func<StackState, StackState> change, CancellationToken cancellationToken)
    {
        using (await DurableFile.LockAsync(Path + ".lock", time, cancellationToken).ConfigureAwait(false))
        {
            var before = Read();
            var after = change(before);
            if (after != before)
            {
                DurableFile.WriteJson(Path, after);
            }

            return after;
        }
    }
}
