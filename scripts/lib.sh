# shellcheck shell=bash
# Sourced by every script here. Everything these scripts make lies under one directory, $ESGZ_STATE.
ESGZ_STATE=${ESGZ_STATE:-/var/lib/esgz-lab}
export ESGZ_STATE

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || die "${0##*/} needs root (containers, mounts, packages): run it with sudo"; }

# need_disk MB WHAT [DIR]: refuse rather than fill the disk. 2 GB beyond what is needed stay free, because a full disk
# takes every other process on the machine down with it.
need_disk() {
  local mb=$1 what=$2 dir=${3:-$ESGZ_STATE} at free
  at=$dir
  while [ ! -d "$at" ]; do at=$(dirname "$at"); done
  free=$(df -Pm "$at" | awk 'NR == 2 { print $4 }')
  say "disk: $what needs up to $mb MB in $dir ($free MB free)"
  [ "$free" -ge $((mb + 2048)) ] ||
    die "$what needs $mb MB in $dir and 2048 MB to spare, but $free MB are free: make room, or set ESGZ_STATE to a directory on a larger disk"
}

# load_env: the tools that scripts/setup installed, first in PATH.
load_env() {
  [ -r "$ESGZ_STATE/env.sh" ] || die "no $ESGZ_STATE/env.sh: run scripts/setup first"
  # shellcheck disable=SC1091
  . "$ESGZ_STATE/env.sh"
}

# lock NAME [SECONDS]: one run at a time; the lock ends with the process. Daemons must be started with {esgz_lock}>&-.
lock() {
  mkdir -p "$ESGZ_STATE"
  exec {esgz_lock}>"$ESGZ_STATE/$1.lock"
  flock -n "$esgz_lock" && return
  say "waiting for another ${0##*/} ($ESGZ_STATE/$1.lock)"
  flock -w "${2:-1800}" "$esgz_lock" || die "another ${0##*/} still holds $ESGZ_STATE/$1.lock"
}

# version_at_least HAVE WANT
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# json KEY[.KEY...]: that member of the JSON object on standard input.
json() {
  python3 -c 'import json, sys
v = json.load(sys.stdin)
for k in sys.argv[1].split("."): v = v[int(k)] if isinstance(v, list) else v[k]
print(v if isinstance(v, str) else json.dumps(v))' "$1"
}

apt_updated=
apt_update() {
  [ -z "$apt_updated" ] || return 0
  say "apt-get update"
  mkdir -p "$ESGZ_STATE/log"
  quietly "$ESGZ_STATE/log/apt.log" apt-get -qq update || say "apt-get update reported errors; going on with what it has"
  apt_updated=1
}

# apt_known PACKAGE...: whether apt's lists name a version of each.
apt_known() {
  local p found
  for p; do
    found=$(apt-cache policy "$p" 2>/dev/null)
    [[ $found =~ Candidate:\ [^\(] ]] || return 1
  done
}

# apt_install PACKAGE...: only what is missing, without recommended packages; lists are fetched only if they are too old
# or not there.
apt_install() {
  local p missing=()
  for p; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  need_root
  say "installing from Debian: ${missing[*]}"
  apt_known "${missing[@]}" || apt_update
  apt_get_install "${missing[@]}" || { apt_update && apt_get_install "${missing[@]}"; } ||
    die "apt-get could not install: ${missing[*]}"
}
apt_get_install() {
  local log=$ESGZ_STATE/log/apt.log
  mkdir -p "$ESGZ_STATE/log"
  quietly "$log" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
    install --no-install-recommends "$@"
}

# quietly LOG COMMAND...: output to LOG; its end is shown if the command fails.
quietly() {
  local log=$1 status=0
  shift
  "$@" </dev/null >"$log" 2>&1 || status=$?
  [ $status = 0 ] || { say "'$*' failed; $log ends:"; tail -n 15 "$log" >&2; }
  return $status
}

# apt_unpack PACKAGE: unpacks the package into $ESGZ_STATE/debs/PACKAGE without installing it. For what would start a
# service or replace a package of the machine's own (Debian's runc removes Docker's containerd.io, for instance).
apt_unpack() {
  local p=$1 dir=$ESGZ_STATE/debs/$1 tmp
  apt_known "$p" || apt_update
  say "unpacking Debian's $p into $dir (not installed: nothing else on the machine changes)"
  rm -rf "$dir"
  mkdir -p "$ESGZ_STATE/debs"
  tmp=$(mktemp -d "$ESGZ_STATE/debs/.$p.XXXXXX")
  if (cd "$tmp" && apt-get -qq -o APT::Sandbox::User=root download "$p" >&2) ||
     { apt_update && (cd "$tmp" && apt-get -qq -o APT::Sandbox::User=root download "$p" >&2); }; then
    dpkg-deb -x "$tmp"/*.deb "$tmp/root"
    mv "$tmp/root" "$dir"
    rm -rf "$tmp"
  else
    rm -rf "$tmp"
    die "apt-get could not download $p"
  fi
}
