using System.Diagnostics;
using System.Text;
using Nacre.Testing;
using Xunit;

namespace Nacre.Images.Tests.Guest;

/// <summary>What a start printed and how it ended: 0 where it reached the root, 9 where the guest's script refused it.</summary>
internal sealed record StartResult(int ExitCode, string Output);

/// <summary>
/// The layers of a guest as folders of this computer, stacked by the real script of the initramfs (in busybox's shell, as there) with real mounts in a
/// mount namespace of its own, and the image's own programs with nothing but perl-base and a few programs of the system beside them.
/// </summary>
internal sealed class GuestStart : IDisposable
{
    private static readonly Lazy<string> Programs = new(MakePrograms);

    // In memory: what is made durable at each step would wait for the disk of this computer.
    private readonly TemporaryDirectory folder = new("/dev/shm");

    public GuestStart()
    {
        Require.Tool("busybox");
        if (Environment.UserName != "root")
        {
            Assert.Skip("mounting takes root");
        }

        foreach (var layer in new[] { "system", "app-00", "applications", "settings", "data", "cfg" })
        {
            Directory.CreateDirectory(folder[layer]);
        }

        Shell($"cp -a {Programs.Value}/etc {folder["system"]}");
        Write("system/etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nuser:x:1000:1000::/home/user:/bin/sh\n");
        Write("system/etc/shadow", "root:!:1::::::\ndaemon:*:1::::::\nuser:!:1::::::\n");
        Write("system/etc/group", "root:x:0:\ndaemon:x:1:\nuser:x:1000:\n");
        Write("system/home/user/.bashrc", "# bash\n");
        Shell($"chown -R 1000:1000 {folder["system"]}/home/user; chmod 0640 {folder["system"]}/etc/shadow");
        Stack("1");
    }

    public string this[string path] => folder[path];

    /// <summary>What the player says of the stack: a release and an application layer of this version.</summary>
    public void Stack(string version) => Write("cfg/stack", $"base 1\noffice {version}\n");

    /// <summary>The administrator's rules.</summary>
    public void Rules(params string[] lines) => Write("cfg/rules", string.Concat(lines.Select(line => line + "\n")));

    /// <summary>Writes a file of a layer, such as <c>app-00/etc/motd</c>.</summary>
    public void Write(string path, string content)
    {
        var file = folder[path];
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        // A new file: the old one may be a hard link of another test's.
        File.Delete(file);
        File.WriteAllText(file, content);
    }

    public string Read(string path) => File.ReadAllText(folder[path]);

    /// <summary>Starts the guest and runs a script in it, whose working folder is the guest's root.</summary>
    /// <param name="session">The script, for bash.</param>
    /// <param name="fault">The step of a program of the guest's at which it is killed; 0: none.</param>
    /// <param name="before">Run before, in the same namespace, for instance to mount another disk.</param>
    public StartResult Start(string session = "", int fault = 0, string before = "")
    {
        Write("session", "set -eu\n" + session);
        Write("start", $$"""
            nacre_fail() { echo "nacre: failed: $*"; exit 9; }
            . {{Repository.At("guest", "initramfs", "scripts", "nacre")}}
            nacre_say() { echo "nacre: $*"; }
            blkid() { :; }
            chroot()
            {
                local root="$1"
                shift 3
                command chroot "$root" /usr/bin/env -i NACRE_FAULT={{fault}} "$@"
            }
            rootmnt=/run/root
            configuration=/run/configuration
            factory={{Repository.At("guest", "layers")}}
            nacre_read_configuration
            nacre_read_rules
            nacre_stack
            """);
        Write("namespace", $$"""
            set -eu
            here={{folder.Path}}
            mount -t tmpfs none /run
            mkdir -p /run/nacre/volumes/scratch /run/root
            mount -t tmpfs none /run/nacre/volumes/scratch
            for layer in system app-00 applications settings data; do
                mkdir "/run/nacre/volumes/$layer"
                mount --bind "$here/$layer" "/run/nacre/volumes/$layer"
            done
            umount /run/nacre/volumes/system
            mount -t overlay -o "lowerdir=$here/system:{{Programs.Value}}" none /run/nacre/volumes/system
            for entry in "$here"/cfg/*; do
                mkdir -p "/run/configuration/${entry##*/}"
                cp "$entry" "/run/configuration/${entry##*/}/raw"
            done
            {{before}}
            busybox sh -u "$here/start"
            cd /run/root
            bash "$here/session"
            """);
        return Run("unshare", "--mount", "--propagation", "private", "bash", folder["namespace"]);
    }

    /// <summary>Starts the guest, which must reach its root and run the script.</summary>
    public string Started(string session = "")
    {
        var result = Start(session);
        Assert.True(result.ExitCode == 0, $"ended with {result.ExitCode}:\n{result.Output}");
        return result.Output;
    }

    /// <summary>Every file of the user's layers, with its mode, owner and content, but for what only a start leaves there.</summary>
    public string Fingerprint() => Shell($"""
        cd {folder.Path}
        find applications settings data -path '*/.nacre/work' -prune -o -name machine-id -prune -o -printf '%P %y %m %U:%G %l\n' | LC_ALL=C sort
        find applications settings data -path '*/.nacre/work' -prune -o -name machine-id -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
        """);

    /// <summary>A copy of the layers as they are.</summary>
    public GuestStart Copy()
    {
        var copy = new GuestStart();
        Shell($"cd {copy.folder.Path} && rm -rf * && cp -a {folder.Path}/. .");
        return copy;
    }

    public static string Shell(string script)
    {
        var result = Run("bash", "-c", "set -eu\n" + script);
        Assert.True(result.ExitCode == 0, $"{script}\nended with {result.ExitCode}: {result.Output}");
        return result.Output;
    }

    public void Dispose() => folder.Dispose();

    private static StartResult Run(params string[] words)
    {
        using var process = Process.Start(new ProcessStartInfo(words[0], words[1..]) { RedirectStandardOutput = true, RedirectStandardError = true, Environment = { ["LC_ALL"] = "C" } })!;
        var text = new StringBuilder();
        void Add(object sender, DataReceivedEventArgs line)
        {
            lock (text)
            {
                _ = line.Data is null ? text : text.Append(line.Data).Append('\n');
            }
        }

        process.OutputDataReceived += Add;
        process.ErrorDataReceived += Add;
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        process.WaitForExit();
        return new StartResult(process.ExitCode, text.ToString());
    }

    /// <summary>A root that has what the guest's programs may use, and no more: made once, left for the system to clean.</summary>
    private static string MakePrograms()
    {
        var root = Directory.CreateTempSubdirectory("nacre-programs-").FullName;
        AppDomain.CurrentDomain.ProcessExit += (_, _) => Directory.Delete(root, recursive: true);
        Shell($$"""
            cd {{root}}
            mkdir -p usr/bin usr/lib usr/lib64 dev proc sys run tmp etc home opt usr/local
            ln -s usr/bin bin; ln -s usr/lib lib; ln -s usr/lib64 lib64
            for program in perl env cp rm sync stat sh; do
                file="$(readlink -f "$(command -v $program)")"
                cp "$file" usr/bin/$program
                ldd "$file" | grep -o '/[^ ]*' | while read -r library; do
                    mkdir -p ".$(dirname "$library")"
                    cp -Ln "$library" ".$library"
                done
            done
            base="$(perl -e 'print grep { m{/perl-base$} } @INC')"
            mkdir -p ".$base"
            cp -a "$base/." ".$base/"
            cp -a {{Repository.At("guest", "files", "usr")}}/. usr/
            # Packages have tests of their own, with a real database of them.
            rm usr/lib/nacre/applications usr/lib/nacre/corporate
            """);
        return root;
    }
}
