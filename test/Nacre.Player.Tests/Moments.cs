using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.CompilerServices;
using Nacre.Player.LivePcs;
using Nacre.Player.Moments;
using Nacre.Policies;
using Nacre.Volumes;

namespace Nacre.Player.Tests;

/// <summary>The three layers of a LivePC in real volumes, each of which holds one number, and their moments.</summary>
internal sealed class LayersOfNumbers : IAsyncDisposable
{
    private static readonly byte[] Key = [.. Enumerable.Range(0, 32).Select(value => (byte)value)];

    public LayersOfNumbers(LivePcFolder folder, TimeProvider? time = null, Action<string>? stepTaken = null)
    {
        Volumes = MomentStore.Layers.ToDictionary(layer => layer, layer => Directory.Exists(folder.Volume(layer))
            ? Volume.Open(folder.Volume(layer), Key)
            : Volume.Create(folder.Volume(layer), new VolumeOptions { Size = 16 << 20 }, Key));
        Moments = new MomentStore(Volumes, folder, time ?? TimeProvider.System) { StepTaken = stepTaken };
    }

    public IReadOnlyDictionary<string, Volume> Volumes { get; }

    public MomentStore Moments { get; }

    /// <summary>What the layers hold: applications, settings, data.</summary>
    public async Task<int[]> ReadAsync()
    {
        var values = new List<int>();
        foreach (var layer in MomentStore.Layers)
        {
            values.Add(await ReadAsync(Volumes[layer]));
        }

        return [.. values];
    }

    public static async Task<int> ReadAsync(IBlockDevice device)
    {
        var block = new byte[4096];
        await device.ReadAsync(4096, block, default);
        return BinaryPrimitives.ReadInt32LittleEndian(block);
    }

    public async Task WriteAsync(int applications, int settings, int data)
    {
        foreach (var (layer, value) in MomentStore.Layers.Zip([applications, settings, data]))
        {
            var block = new byte[4096];
            BinaryPrimitives.WriteInt32LittleEndian(block, value);
            await Volumes[layer].WriteAsync(4096, block, forceUnitAccess: true, default);
        }
    }

    public Task WriteAsync(int value) => WriteAsync(value, value, value);

    public async ValueTask DisposeAsync()
    {
        foreach (var volume in Volumes.Values)
        {
            await volume.DisposeAsync();
        }
    }
}

/// <summary>Time that a test sets.</summary>
internal sealed class SetTime(DateTimeOffset now) : TimeProvider
{
    public DateTimeOffset Now { get; set; } = now;

    public override DateTimeOffset GetUtcNow() => Now;
}

/// <summary>The child process of the kill test: this executable, told by its environment to take moments and to put layers back until it is killed. It says what it is
/// about to do, from which number to which.</summary>
internal static class RestlessPlayer
{
    public const string Setting = "NACRE_MOMENTS_UNTIL_KILLED";

    [ModuleInitializer]
    internal static void RunIfAsked()
    {
        if (Environment.GetEnvironmentVariable(Setting) is { Length: > 0 } seed)
        {
            RunAsync(new Random(int.Parse(seed, CultureInfo.InvariantCulture))).GetAwaiter().GetResult();
        }
    }

    private static async Task RunAsync(Random random)
    {
        var folder = new LivePcFolder(PlayerPaths.Open(), "office");
        await using var layers = new LayersOfNumbers(folder);
        layers.Moments.Repair();
        await layers.Moments.FinishAsync();
        var state = await layers.ReadAsync();
        var now = state.Max();
        await using var output = Console.OpenStandardOutput();
        void Say(string words) => output.Write(System.Text.Encoding.ASCII.GetBytes(words + "\n"));

        // The numbers themselves are not written together.
        Say($"write {state.Min()} {now}");
        await layers.WriteAsync(now);
        while (true)
        {
            Say($"write {now} {now + 1}");
            await layers.WriteAsync(++now);
            Say($"take {now} {now}");
            if (random.Next(2) == 0)
            {
                layers.Moments.Take(MomentKind.User, $"{now}");
            }
            else
            {
                layers.Moments.Settle(layers.Moments.Mark(MomentKind.User, $"{now}"));
            }

            var choices = layers.Moments.List().Where(moment => moment.Label is not null).ToArray();
            var to = random.Next(4) == 0 ? null : choices[random.Next(choices.Length)];
            var then = to is null ? 0 : int.Parse(to.Label!, CultureInfo.InvariantCulture);
            Say($"rejuvenate {now} {then}");
            var before = await layers.Moments.RejuvenateAsync(MomentKind.Rejuvenation, [.. MomentStore.Layers.Select(layer => new LayerAction(layer, to?.Id))], null);
            Say($"undo {then} {now}");
            await layers.Moments.RejuvenateAsync(MomentKind.Undo, [.. MomentStore.Layers.Select(layer => new LayerAction(layer, before.Id))], null);
            Say($"retain {now} {now}");
            layers.Moments.Retain(Policy.Of("test", PolicyDocument.Empty.With(Settings.SnapshotKeep, 5).With(Settings.RejuvenateUndoDays, 0)));
        }
    }
}
