namespace Nacre.Player.Moments;

/// <summary>What is run in the guest as root for moments. Each runs with what every Debian has, leaves nothing mounted (the mounts are in a namespace of its own that
/// ends with it), and takes everything that varies as arguments or input.</summary>
internal static class GuestScripts
{
    /// <summary>Where the guest has its layers' disks mounted, for root alone.</summary>
    public const string Volumes = "/run/nacre/volumes";

    /// <summary>What the guest records of its mounts: <c>PATH LAYER KIND</c>, a line each.</summary>
    public const string Mounts = "cat /run/nacre/layers";

    /// <summary>Exit codes of the scripts below.</summary>
    public const int NoDisk = 71, NotThere = 72, ThroughLink = 73, NoFolder = 74;

    /// <summary>Before the layers stand still: what was written is written down, and again while that takes longer than 0.1 s, as meanwhile more is written; five times
    /// at most. A freeze waits for the kernel's grace periods, some 20 ms each, unless they are expedited, which <see cref="Unguard"/> takes back. Arguments: mount points.</summary>
    public const string Flush = """
        echo 1 2>/dev/null >/sys/kernel/rcu_expedited
        for round in 1 2 3 4 5; do
            read -r before rest </proc/uptime
            sync -f "$@"
            read -r after rest </proc/uptime
            [ $((${after%.*}${after#*.} - ${before%.*}${before#*.})) -gt 10 ] || break
        done
        """;

    /// <summary>Lets file systems go on after a while. Arguments: seconds, mount points.</summary>
    public const string Guard = """
        sleep "$1"
        shift
        for point in "$@"; do fsfreeze -u "$point"; done 2>/dev/null
        echo 0 2>/dev/null >/sys/kernel/rcu_expedited
        """;

    /// <summary>Ends the guard, so that it does not meet the next moment. Argument: its process.</summary>
    public const string Unguard = """
        kill "$1"
        echo 0 2>/dev/null >/sys/kernel/rcu_expedited
        """;

    /// <summary>Tells everybody in the guest. Argument: the words.</summary>
    public const string Warn = """
        wall "$1" 2>/dev/null
        for bus in /run/user/*/bus; do
            [ -S "$bus" ] || continue
            user="${bus#/run/user/}"
            user="$(id -nu "${user%/bus}")" || continue
            runuser -u "$user" -- env "DBUS_SESSION_BUS_ADDRESS=unix:path=$bus" notify-send -u critical 'Nacre' "$1" 2>/dev/null
        done
        exit 0
        """;

    /// <summary>Lists a folder of a moment. Arguments: its disk, the path.</summary>
    public const string Browse = Prologue + """
        look a "$1"
        place="$(inside "$view/a" "$2")"
        if [ -d "$place" ]; then
            cd "$place"
            find . -mindepth 1 -maxdepth 1 -printf '%f\0%y\0%s\0%T@\0%m\0%u:%g\0%l\0' | head -c 8000000
        else
            find "$place" -maxdepth 0 -printf '%f\0%y\0%s\0%T@\0%m\0%u:%g\0%l\0'
        fi
        """;

    /// <summary>Says what differs between two states of a layer. Arguments: the first one's disk, the second's or 'now', the layer. A record a line that is in one
    /// only, the second's after a byte 2; the parts of a record end with a byte 1. Of a folder that says nothing but that it has another
    /// content, nothing is said.</summary>
    public const string Compare = Prologue + """
        look a "$1"
        if [ "$2" = now ]; then other="$volumes/$3"; else look b "$2"; other="$view/b"; fi
        list() {
            cd "$1"
            find . -mindepth 1 '(' -path ./.nacre -o -path ./lost+found ')' -prune \
                -o -type d -printf '%P\001d\0010\001-\001%m %U %G\001\0' -o -printf '%P\001%y\001%s\001%T@\001%m %U %G\001%l\0' | sort -z
        }
        comm -z -3 --output-delimiter=$'\002' <(list "$view/a") <(list "$other") | head -c 12000000
        """;

    /// <summary>Says which files have the same content. Arguments as of <see cref="Compare"/>; input: their paths, each ended by a zero byte.</summary>
    public const string Same = Prologue + """
        look a "$1"
        if [ "$2" = now ]; then other="$volumes/$3"; else look b "$2"; other="$view/b"; fi
        while IFS= read -r -d '' path; do
            if cmp -s -- "$view/a/$path" "$other/$path"; then printf '%s\0' "$path"; fi
        done
        """;

    /// <summary>Takes a file or a folder back. Arguments: the moment's disk, the path in it, where to, 'same' where that is its own place. Prints where what was there
    /// is now (empty where nothing was), files and bytes.</summary>
    public const string Restore = Prologue + """
        look a "$1"
        from="$(inside "$view/a" "$2")"
        to="$3"
        folder="${to%/*}"
        if [ "$4" = same ]; then
            # Folders on the way that are gone are made as they were.
            part=
            while IFS= read -r -d / name; do
                [ -n "$name" ] || continue
                part="$part/$name"
                if [ ! -e "$part" ] && [ ! -L "$part" ]; then
                    mkdir -m 0700 -- "$part"
                    if [ -d "$view/a$part" ]; then
                        chown --reference="$view/a$part" -- "$part"
                        chmod --reference="$view/a$part" -- "$part"
                    fi
                fi
            done <<<"$folder/"
        fi
        folder="${folder:-/}"
        [ -d "$folder" ] || exit 74
        [ "$(realpath -- "$folder")" = "$folder" ] || exit 73
        new="${to%/*}/.nacre-incoming.$$"
        trap 'rm -rf -- "$new"' EXIT
        cp -a -- "$from" "$new"
        aside=
        if [ -e "$to" ] || [ -L "$to" ]; then
            aside="$to.displaced"
            while [ -e "$aside" ] || [ -L "$aside" ]; do aside="$aside+"; done
            mv -T -- "$to" "$aside"
        fi
        mv -T -- "$new" "$to"
        sync -f "$folder"
        printf '%s\0%s\0%s\0' "$aside" "$(find "$to" -type f -printf . | wc -c)" "$(du -sb -- "$to" | cut -f 1)"
        """;

    /// <summary>Mounts of an earlier player's are none any more; what a killed script left goes with its namespace.</summary>
    private const string Prologue = """
        set -euo pipefail
        export LC_ALL=C
        volumes=/run/nacre/volumes
        view=/run/nacre/moments
        mkdir -p -m 0700 "$view"
        mount -t tmpfs -o mode=0700,size=1m tmpfs "$view"

        # The disk with the serial number $1, once the kernel has it.
        disk() {
            local tries=0 entry serial
            while :; do
                for entry in /sys/block/vd*; do
                    serial=
                    read -r serial 2>/dev/null <"$entry/serial" || :
                    if [ "$serial" = "$1" ] && [ -b "/dev/${entry##*/}" ]; then
                        echo "/dev/${entry##*/}"
                        return 0
                    fi
                done
                tries=$((tries + 1))
                [ "$tries" -lt 300 ] || exit 71
                sleep 0.1
            done
        }

        # Mounts disk $2 as $1; '-' is a layer that held nothing. A disk that was plugged in just now may not be ready at once.
        look() {
            local tries=1 disk
            mkdir "$view/$1"
            [ "$2" != - ] || return 0
            disk="$(disk "$2")"
            until mount -t ext4 -o ro,noload,nodev,nosuid,noexec "$disk" "$view/$1" 2>"$view/why"; do
                if [ "$tries" -ge 5 ]; then
                    echo "$(head -n 1 "$view/why"); the kernel says: $(dmesg | tail -n 1)" >&2
                    exit 1
                fi
                tries=$((tries + 1))
                sleep 0.5
            done
        }

        # The place of path $2 below $1, which no link may lead out of.
        inside() {
            local place="$1$2"
            place="${place%/}"
            [ -e "$place" ] || [ -L "$place" ] || exit 72
            [ "$(realpath -- "${place%/*}")" = "${place%/*}" ] || [ "$place" = "$1" ] || exit 73
            printf '%s' "$place"
        }

        """;
}
