# shellcheck shell=bash
# Sourced by run.sh, test.sh and nacre: installs what is missing on a Debian machine, saying so, and builds the checkout.
# Needs bash and the .NET 10 SDK; installs by apt-get, as root or through sudo.

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $1"; [ $# -lt 2 ] || say "hint: $2"; exit 1; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1 DOTNET_SKIP_FIRST_TIME_EXPERIENCE=1
export PATH="$PATH:/usr/sbin:/sbin"
nacre_program="$root/artifacts/bin/Nacre.Cli/release/nacre"

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "'$1' needs root, and sudo is not installed" "run as root: apt-get install $missing"
  fi
}

# need_packages PACKAGE…: installs those that are missing.
need_packages() {
  missing=
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  say "installing Debian packages:$missing"
  local log
  log=$(mktemp)
  # shellcheck disable=SC2086
  as_root apt-get update >"$log" 2>&1 &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >>"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; die "apt-get could not install:$missing" "see $log"; }
  rm -f "$log"
}

need_sdk() {
  command -v dotnet >/dev/null || die "the .NET 10 SDK is not installed" "https://dotnet.microsoft.com/download/dotnet/10.0"
  dotnet --version 2>/dev/null | grep -q '^10\.' || die "the .NET 10 SDK is needed, not $(dotnet --version 2>/dev/null)"
}

# build_nacre: builds the command line where a source is newer than it.
build_nacre() {
  need_sdk
  if [ -x "$nacre_program" ] && [ -z "$(find "$root/src" "$root"/Directory.* -newer "$nacre_program" \( -name '*.cs' -o -name '*.csproj' -o -name '*.props' \) -print -quit)" ]; then
    return 0
  fi
  say "building nacre"
  local log
  log=$(mktemp)
  dotnet build "$root/src/Nacre.Cli" -c Release -v quiet >"$log" 2>&1 || { grep -E 'error' "$log" | sort -u | head -20 >&2; die "the build failed" "see $log"; }
  touch "$nacre_program"
  rm -f "$log"
}
