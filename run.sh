#!/usr/bin/env bash
# The main job on real input: builds a golden image, publishes it, streams it into a LivePC, infects it, puts it back, updates it and runs it
# without the server. Leaves server and LivePC running until Ctrl-C.
#   ./run.sh             with the desktop (first run: downloads about 700 MB of Debian packages)
#   ./run.sh --minimal   with a Debian without a desktop (quick)
#   ./run.sh --check     ends by itself: exit code 0 where every step did what it should
# Works in artifacts/run (NACRE_RUN_DIR changes that); built images are kept there and used again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/setup.sh
. "$here/scripts/setup.sh"
image=debian-desktop check=
for option in "$@"; do
  case "$option" in
  --minimal) image=debian-minimal ;;
  --check) check=1 ;;
  -h|--help) sed -n '2,8p' "$0" | cut -c3-; exit 0 ;;
  *) die "unknown option '$option'" "./run.sh --help" ;;
  esac
done
memory=2048
[ "$image" = debian-desktop ] || memory=1024
work=${NACRE_RUN_DIR:-$root/artifacts/run}
golden=$work/golden
state=$work/$image
url=https://127.0.0.1:${NACRE_RUN_PORT:-8420}
export NACRE_ADMIN_HOME=$state/admin NACRE_HOME=$state/device

bold= plain=
[ ! -t 2 ] || bold=$(printf '\033[1m') plain=$(printf '\033[0m')
step() { say "${bold}== $*${plain}"; }
nacre() { "$nacre_program" "$@"; }
guest() { nacre livepc exec office -- /bin/sh -c "$1" </dev/null; }
expect() { # expect WHAT WANT HAVE
  if [ "$2" = "$3" ]; then say "   ok: $1"; else die "$1: expected '$2', found '$3'"; fi
}

server= waiter=
stop_server() { [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }; server=; }
finish() {
  local code=$?
  trap - EXIT INT TERM
  [ ! -e "$NACRE_HOME/device.json" ] || nacre livepc stop office >/dev/null 2>&1 || true
  stop_server
  [ -z "$waiter" ] || kill "$waiter" 2>/dev/null || true
  exit "$code"
}
start_server() {
  # Not through the function: the process to stop later is the server itself.
  "$nacre_program" server --listen "$url" --data "$state/server" >"$state/server.log" 2>&1 &
  server=$!
  for _ in $(seq 300); do
    ! grep -q '^serving ' "$state/server.log" || return 0
    kill -0 "$server" 2>/dev/null || { cat "$state/server.log" >&2; die "the server did not start" "another port: NACRE_RUN_PORT=8500 ./run.sh"; }
    sleep 0.1
  done
  die "the server does not answer" "see $state/server.log"
}
# build RECIPE NAME: builds a golden image, unless the same recipe was built by the same builder before.
build() {
  local key
  key=$(cat "$1" $(find "$root/guest" "$root/src/Nacre.Images/Building" -type f | sort) | sha256sum | cut -c1-16)
  built=$golden/$2-$key
  [ -d "$built" ] || nacre image build "$1" --output "$built"
}
wait_until_complete() {
  until nacre livepc status office | tee "$state/status" | grep -q '^complete'; do sleep 2; done
  sed 's/^/   /' "$state/status" >&2
}
# deb NAME: a package that is not in the image, as the user would download it (the guest has no network).
deb() {
  missing=; (cd "$state" && { apt-get -qq -o APT::Sandbox::User=root download "$1" || { as_root apt-get -qq update && apt-get -qq -o APT::Sandbox::User=root download "$1"; }; }) >&2
  ls "$state/$1"_*.deb
}
wait_for_desktop() {
  [ "$image" = debian-desktop ] || return 0
  say "   waiting for the desktop to be drawn"
  for _ in $(seq 300); do
    if [ "$(guest 'pgrep -x xfdesktop >/dev/null && pgrep -x xfce4-panel >/dev/null && echo drawn || true')" = drawn ]; then sleep 20; return 0; fi
    sleep 2
  done
  die "the desktop did not appear" "look: ./nacre livepc screenshot office screen.png"
}

step "Set-up"
# shellcheck disable=SC2046
need_packages qemu-system-x86 mmdebstrap erofs-utils zstd $([ "$(id -u)" = 0 ] || echo uidmap)
build_nacre
mkdir -p "$golden"
trap finish EXIT
trap 'exit 130' INT TERM
[ ! -e "$NACRE_HOME/device.json" ] || nacre livepc stop office >/dev/null 2>&1 || true
rm -rf "$state"
mkdir -p "$state"

step "1. Build the golden image $image"
build "$root/recipes/$image.yaml" "$image"

step "2. Start the server; publish the image; define the LivePC 'office' for alice"
start_server
nacre login "$url" --token-file "$state/server/admin-token" --ca "$state/server/ca.pem"
nacre user add alice --display-name Alice
printf 'the passphrase of the recovery officer\n' >"$state/passphrase"
nacre recovery create-key "$state/recovery" --passphrase-file "$state/passphrase"
nacre recovery set "$state/recovery.pub"
nacre image publish "$built" --channel stable
nacre livepc create office --image "$image"
nacre livepc entitle office alice

step "3. An empty device enrols and starts by streaming"
nacre device enrol "$url" "$(nacre device code alice 2>/dev/null)" --name "a private laptop"
export NACRE_PASSWORD='what alice typed as her new password' # a terminal asks for it; here nobody sits before one
nacre livepc start office --memory "$memory" --timeout 30
wait_for_desktop
nacre livepc screenshot office "$state/desktop.png"

step "4. The user works: a report, a package of his own, an edited setting; then something changes the system"
canary=canary-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
guest "echo $canary > /home/user/report.txt && chown user: /home/user/report.txt"
nacre livepc exec office -- /bin/sh -c 'cat >/tmp/hello.deb && dpkg -i /tmp/hello.deb' <"$(deb hello)" | sed 's/^/   /'
guest "echo mine > /etc/issue"
guest "cp /bin/true /usr/bin/forbidden; echo '* * * * * root /usr/bin/forbidden' > /etc/cron.d/forbidden; echo infected > /usr/bin/passwd; sync"
expect "the intruder is there" yes "$(guest 'test -x /usr/bin/forbidden && test -e /etc/cron.d/forbidden && grep -q infected /usr/bin/passwd && echo yes || echo no')"

step "5. Rejuvenate the system: what is the user's stays"
nacre livepc rejuvenate office --memory "$memory" --timeout 30
expect "the program is gone" gone "$(guest 'test -e /usr/bin/forbidden && echo there || echo gone')"
expect "the cron job is gone" gone "$(guest 'test -e /etc/cron.d/forbidden && echo there || echo gone')"
expect "the replaced program is as it was" ELF "$(guest 'head -c 4 /usr/bin/passwd | tail -c 3')"
expect "the report is still there" "$canary" "$(guest 'cat /home/user/report.txt')"
expect "the user's package still works" "Hello, world!" "$(guest hello)"
expect "the edited setting is still there" mine "$(guest 'cat /etc/issue')"
nacre explain office /usr/bin/hello
nacre explain office /etc/issue

step "6. Something gets into the user's own layers and encrypts his report; back to the moment before, and nothing else is asked"
nacre livepc snapshot take office --name before
guest "echo 'wget evil' >> /home/user/.bashrc; echo evil > /usr/local/bin/ls; openssl rand 64 > /home/user/report.txt 2>/dev/null || head -c 64 /dev/urandom > /home/user/report.txt; sync"
nacre livepc snapshot compare office before
nacre livepc rejuvenate office --depth moment --to before --yes --memory "$memory" --timeout 30
expect "the report is back" "$canary" "$(guest 'cat /home/user/report.txt')"
expect "the changed .bashrc is as it was" 0 "$(guest 'grep -c evil /home/user/.bashrc || true')"
expect "the planted program is gone" gone "$(guest 'test -e /usr/local/bin/ls && echo there || echo gone')"

step "7. Release 2: one more package, one changed file"
build "$root/testdata/recipes/$image-2.yaml" "$image-2"
nacre image publish "$built" --channel stable
wait_until_complete
nacre livepc update office
nacre livepc stop office
nacre livepc start office --memory "$memory" --timeout 30
package=$([ "$image" = debian-desktop ] && echo galculator || echo tree)
expect "the new package is there" yes "$(guest "command -v $package >/dev/null && echo yes || echo no")"
expect "the setting still stands, though the release changed that file too" mine "$(guest 'cat /etc/issue')"
expect "the release's version is beside it" "Debian 12, second release" "$(guest 'cat /etc/issue.dpkg-dist')"
expect "the report is still there" "$canary" "$(guest 'cat /home/user/report.txt')"
expect "the user's package still works" "Hello, world!" "$(guest hello)"
expect "the package database is sound" "" "$(guest 'dpkg --audit; apt-get -qq check')"
expect "it knows both sides" 2 "$(guest "dpkg-query -W -f '\${db:Status-Abbrev}\n' hello $package | grep -c '^ii'")"
wait_until_complete

step "8. Without the server"
nacre livepc stop office
stop_server
nacre livepc start office --memory "$memory" --timeout 30 | tee "$state/offline"
expect "the server was not asked" yes "$(grep -q '; offline$' "$state/offline" && echo yes || echo no)"
expect "the report is still there" "$canary" "$(guest 'cat /home/user/report.txt')"

step "9. Alice forgets her password; the help desk reads her a code that only the organisation's offline key gives"
nacre livepc stop office
start_server
forgotten=$NACRE_PASSWORD
NACRE_PASSWORD='not that one either' nacre livepc start office --memory "$memory" 2>"$state/wrong" && die "a wrong password opened it" "" || sed 's/^/   /' "$state/wrong" >&2
device=$(nacre recovery list --json | sed -n 's/.*"device": "\(.*\)".*/\1/p')
code=$(nacre recovery unlock "$device" office --reason 'alice called' --key "$state/recovery" --passphrase-file "$state/passphrase")
export NACRE_PASSWORD='a password that alice will remember'
nacre livepc password office --recovery --code "$code"
nacre livepc start office --memory "$memory" --timeout 30
expect "the report is still there" "$canary" "$(guest 'cat /home/user/report.txt')"
expect "the forgotten password opens nothing" 8 "$(NACRE_PASSWORD=$forgotten nacre livepc password office >/dev/null 2>&1; echo $?)"

step "10. Nothing of it lies in the clear on the device or the server"
expect "files that hold the canary" 0 "$(grep -rlaF --devices=skip "$canary" "$state/device" "$state/server" | wc -l)"

wait_for_desktop
nacre livepc screenshot office "$state/desktop-2.png"
say ""
say "${bold}All steps done.${plain}"
[ -z "$check" ] || exit 0
say "server:     $url  (API: $url/openapi/v1.json; data: $state/server)"
say "password:   $NACRE_PASSWORD"
nacre livepc console office >&2
say "pictures:   $state/desktop.png, $state/desktop-2.png"
say "command:    NACRE_HOME=$NACRE_HOME NACRE_ADMIN_HOME=$NACRE_ADMIN_HOME ./nacre livepc status office"
say "Ctrl-C stops the LivePC and the server."
sleep infinity &
waiter=$!
wait "$waiter"
