# shellcheck shell=bash
# What the scripts share. Source it right after `set -euo pipefail`:
#
#     . "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
#
# Data goes to stdout, talk to stderr. Built things are kept in $CACHE, which may be removed at any time.

PROJECT_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${RACKWRIGHT_CACHE:-$PROJECT_ROOT/.cache}
case $CACHE in /*) ;; *) CACHE=$PWD/$CACHE ;; esac

# Debian keeps mkfs.vfat, sgdisk, depmod and losetup here, and an ordinary user's PATH does not name it.
PATH=$PATH:/usr/sbin:/sbin

if [[ -t 2 && -z ${NO_COLOR:-} ]]; then
  BOLD=$'\e[1m' RED=$'\e[31m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
  BOLD='' RED='' YELLOW='' PLAIN=''
fi

# say WORD…: a line of progress.
say() { printf '%s%s:%s %s\n' "$BOLD" "${0##*/}" "$PLAIN" "$*" >&2; }

# warn WORD…: something a person should know, though the script goes on.
warn() { printf '%s%s: warning:%s %s\n' "$YELLOW" "${0##*/}" "$PLAIN" "$*" >&2; }

# die WORD…: says why and ends the script with status 1.
die() {
  printf '%s%s: error:%s %s\n' "$RED" "${0##*/}" "$PLAIN" "$*" >&2
  exit 1
}

# usage_from_header: prints the comment that the calling script begins with, for --help.
usage_from_header() { sed -n '2,/^$/ { /^#/!q; s/^# \{0,1\}//; p }' "$0"; }

# bad_usage WORD…: a wrong command line. Status 2, as getopt does.
bad_usage() {
  printf '%s: %s\nTry: %s --help\n' "${0##*/}" "$*" "$0" >&2
  exit 2
}

# at_exit COMMAND WORD…: runs it when the script ends, however it ends. The last one registered runs first.
AT_EXIT=()
at_exit() {
  local quoted
  printf -v quoted '%q ' "$@"
  AT_EXIT=("$quoted" "${AT_EXIT[@]}")
}
run_at_exit() {
  local status=$? command
  trap - EXIT
  for command in ${AT_EXIT[@]+"${AT_EXIT[@]}"}; do eval "$command" || true; done
  exit "$status"
}
trap run_at_exit EXIT
# Without these, a signal would end the shell without its EXIT trap.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# new_work_dir: sets WORK to a new temporary folder, which is removed at the end. It is in the cache, not in /tmp: that may be in memory, too
# small for a disk image, and mounted so that no device files can be made.
new_work_dir() {
  mkdir -p -- "$CACHE/tmp"
  WORK=$(mktemp -d "${TMPDIR:-$CACHE/tmp}/${0##*/}.XXXXXX")
  at_exit rm -rf -- "$WORK"
}

is_root() { [[ $(id -u) == 0 ]]; }

need_root() { is_root || die "$* needs root: run it as root or with sudo"; }

# is_installed PACKAGE: for this machine's own architecture; dpkg may have it for others, too.
is_installed() {
  local found
  found=$(dpkg-query -W -f='${Architecture} ${db:Status-Status}\n' "$1" 2>/dev/null) || true
  grep -Eqx "(all|$(dpkg --print-architecture)) installed" <<<"$found"
}

# apt_update: refreshes apt's lists, once for a script and the scripts that it starts.
apt_update() {
  [[ -z ${RACKWRIGHT_APT_UPDATED:-} ]] || return 0
  say "apt-get update"
  apt-get update -qq -o Acquire::Retries=3 >&2 || warn "apt-get update failed; going on with the lists that are there"
  export RACKWRIGHT_APT_UPDATED=1
}

# need_packages PACKAGE…: makes sure that these Debian packages are installed. As root it installs what is missing; otherwise it prints the
# one line that does and ends the script. Nothing is asked of apt when nothing is missing.
need_packages() {
  local package missing=()
  command -v dpkg-query >/dev/null || die "this is not Debian; it needs what these Debian packages hold: $*"
  for package in "$@"; do is_installed "$package" || missing+=("$package"); done
  ((${#missing[@]})) || return 0
  if ! is_root; then
    printf '%s: these packages are missing. Install them, then run this again:\n\n' "${0##*/}" >&2
    printf '    sudo apt-get update && sudo apt-get install -y --no-install-recommends %s\n\n' "${missing[*]}" >&2
    exit 1
  fi
  apt_update
  say "installing ${missing[*]}"
  hold_services
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 "${missing[@]}" >&2 || die "apt-get could not install: ${missing[*]}"
  release_services
}

# Some of these packages bring a daemon (sshd, lighttpd, dhcrelay) that Debian would start at once. We want the program only, so while
# packages are installed, Debian's own switch for that (invoke-rc.d's policy-rc.d) says no. A policy that is there already stays.
SERVICE_POLICY=/usr/sbin/policy-rc.d
hold_services() {
  [[ ! -e $SERVICE_POLICY ]] || return 0
  at_exit release_services
  printf '#!/bin/sh\n# rackwright: start nothing while packages are installed\nexit 101\n' >"$SERVICE_POLICY"
  chmod 755 "$SERVICE_POLICY"
}
release_services() {
  if grep -qs '^# rackwright:' "$SERVICE_POLICY"; then rm -f -- "$SERVICE_POLICY"; fi
}

# with_lock NAME: holds a lock of that name until the script ends, so that two scripts do not build one thing at once.
with_lock() {
  mkdir -p -- "$CACHE"
  exec {LOCK_FD}>"$CACHE/$1.lock"
  flock -n "$LOCK_FD" && return 0
  say "waiting for another ${0##*/} that builds $1"
  flock "$LOCK_FD"
}

# digest_of FILE…: one hex SHA-256 over all of them, names left out.
digest_of() { cat -- "$@" | sha256sum | cut -d' ' -f1; }

# uuid_of TEXT: a UUID that depends on the text only, so that an image built twice is the same.
uuid_of() {
  local hex
  hex=$(printf '%s' "$1" | sha256sum | cut -c1-32)
  printf '%s-%s-5%s-8%s-%s\n' "${hex:0:8}" "${hex:8:4}" "${hex:13:3}" "${hex:17:3}" "${hex:20:12}"
}
