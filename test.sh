#!/usr/bin/env bash
# The test lane: everything that a change must pass, on a Debian 12 machine with the .NET SDK. Installs what else it needs, saying so.
#   ./test.sh                the lane (under 30 minutes on two cores)
#   ./test.sh --long         the wide lane on top of it
#   ./test.sh --only NAME    only the test projects whose name contains NAME
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/setup.sh
. "$here/scripts/setup.sh"
long= only=
while [ $# -gt 0 ]; do
  case "$1" in
  --long) long=1 ;;
  --only) only=${2:?'--only needs a name'}; shift ;;
  -h|--help) sed -n '2,5p' "$0" | cut -c3-; exit 0 ;;
  *) die "unknown option '$1'" "./test.sh --help" ;;
  esac
  shift
done
cd "$root"
export TESTINGPLATFORM_TELEMETRY_OPTOUT=1 CI=${CI:-true}
need_sdk
command -v node >/dev/null && command -v npm >/dev/null || need_packages nodejs npm # the OpenID provider of the server's tests
need_packages qemu-system-x86 qemu-utils mmdebstrap erofs-utils uidmap libnbd-bin python3-libnbd nbdkit fio zstd busybox-static e2fsprogs sqlite3 swtpm tpm2-tools ovmf fdisk mtools dosfstools systemd-boot-efi binutils clamav postgresql faketime

say "== restore and build (Release)"
dotnet restore Nacre.slnx --locked-mode -v quiet || die "the locked restore failed" "a package changed without its lock file: dotnet restore, then commit packages.lock.json"
dotnet build Nacre.slnx -c Release --no-restore -v quiet --nologo || die "the build failed"

say "== smoke: the real program"
"$nacre_program" --version >/dev/null || die "nacre does not start"

passed=0 failed=0 skipped=0 status=0
log=$(mktemp) failures=$(mktemp)
trap 'rm -f "$log" "$failures"' EXIT
# Pure tests first, guests last: the first failure is found at the least cost.
for run in Volumes Nbd Images Server Server:postgresql Player Cli EndToEnd; do
  project=${run%%:*}
  [[ "$project" == *"$only"* ]] || continue
  program="artifacts/bin/Nacre.$project.Tests/release/Nacre.$project.Tests"
  [ -x "$program" ] || { say "no test program $program"; failed=$((failed + 1)); status=1; continue; }
  say "== Nacre.$project.Tests${run#"$project"}"
  filter=(-trait- lane=long)
  [ -z "$long" ] || filter=()
  # The server's tests once more, on the other database; those that are always on it, and those that use none, were run.
  database=
  [ "$run" = "$project" ] || { database=${run#*:}; filter+=(-class- '*PostgresTests' -class- '*JwsTests' -class- '*SegmentStoreTests'); }
  parallel=()
  # An emulated guest keeps about one core busy.
  [ "$project" != EndToEnd ] || parallel=(-parallelMode collections -maxThreads 2 -showLiveOutput)
  NACRE_TEST_DATABASE=$database timeout --kill-after=30s 3600 "$program" -noColor -noLogo -longRunning 60 "${filter[@]}" "${parallel[@]}" 2>&1 | tee "$log"
  code=${PIPESTATUS[0]}
  grep -A 10 -F '[FAIL]' "$log" >>"$failures"
  summary=$(grep -oE 'Total: [0-9]+, Errors: [0-9]+, Failed: [0-9]+, Skipped: [0-9]+, Not Run: [0-9]+' "$log" | tail -n 1)
  if [ -z "$summary" ]; then
    say "Nacre.$project.Tests ended without a summary (exit code $code)"
    failed=$((failed + 1)) status=1
    continue
  fi
  read -r total errors fails skips explicit <<<"$(tr -dc '0-9 ' <<<"$summary")"
  [ "$total" -gt 0 ] || { say "Nacre.$project.Tests ran no test"; failed=$((failed + 1)); status=1; }
  passed=$((passed + total - fails - skips - explicit)) failed=$((failed + fails + errors)) skipped=$((skipped + skips))
  [ "$code" = 0 ] || status=1
done
[ "$failed" = 0 ] || status=1
# Once more at the end, where whoever sees only the end of it finds them.
[ ! -s "$failures" ] || { say "== what failed"; cut -c1-300 "$failures"; }
echo "$passed passed, $failed failed, $skipped skipped"
exit "$status"
