using Nacre.Contracts;
using Nacre.Player.LivePcs;

namespace Nacre.Player.Stacks;

/// <summary>Keeps a LivePC's <see cref="StackState"/> in a file: after a crash at any moment it is the old state or the new. A player and an update may change it at once.</summary>
internal sealed class StackBook(LivePcFolder folder, TimeProvider time)
{
    private static readonly TimeSpan LockLimit = TimeSpan.FromSeconds(10);

    private string Path { get; } = System.IO.Path.Combine(folder.Root, "stacks.json");

    /// <summary>The state as it is now.</summary>
    public StackState Read() => DurableFile.ReadJson<StackState>(Path) ?? new StackState();

    /// <summary>Changes the state; durable on return.</summary>
    /// <exception cref="NacreException">FileAccess, NoSpace.</exception>
    public async Task<StackState> ChangeAsync(Func<StackState, StackState> change, CancellationToken cancellationToken)
    {
        using (await LockAsync(cancellationToken).ConfigureAwait(false))
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

    private async Task<FileStream> LockAsync(CancellationToken cancellationToken)
    {
        for (var since = time.GetTimestamp(); ;)
        {
            try
            {
                return new FileStream(Path + ".lock", FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException exception) when (exception is not DirectoryNotFoundException)
            {
                if (time.GetElapsedTime(since) > LockLimit)
                {
                    throw DurableFile.Translate(exception, Path);
                }

                await Task.Delay(TimeSpan.FromMilliseconds(20), time, cancellationToken).ConfigureAwait(false);
            }
        }
    }
}
