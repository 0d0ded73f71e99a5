#!/bin/sh
# The tools from the distribution that the benchmarks compare with; what can't be installed is named in the table.
set -u
wanted=
need() { command -v "$1" >/dev/null 2>&1 || wanted="$wanted $2"; }
need rsync rsync
need parallel-scp pssh
need clush clustershell
[ -z "$wanted" ] && exit 0
if command -v apt-get >/dev/null 2>&1; then
  sudo=
  [ "$(id -u)" = 0 ] || sudo="sudo -n"
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086 # a list of words each
  { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends $wanted; } >/dev/null 2>&1
fi
exit 0
