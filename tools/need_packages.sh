#!/bin/sh
# What the tests use beside Python: an OpenSSH server above all. Installs it with apt where it may, else says what to do.
set -u
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

wanted=
need() { command -v "$1" >/dev/null 2>&1 || wanted="$wanted $2"; }
need sshd openssh-server
need scp openssh-client
need git git
need busybox busybox
need zstd zstd
need curl curl
need flock util-linux
need unshare util-linux
need ip iproute2
need strace strace
need cc "gcc libc6-dev"
need zsh zsh
need tcsh tcsh
need fish fish
[ -z "$wanted" ] && exit 0

if command -v apt-get >/dev/null 2>&1; then
  sudo=
  [ "$(id -u)" = 0 ] || sudo="sudo -n"
  export DEBIAN_FRONTEND=noninteractive
  # No service is started: the tests start their own servers.
  if [ "$(id -u)" = 0 ] && [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  # shellcheck disable=SC2086 # a list of words each
  { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends $wanted; } >/dev/null 2>&1
  wanted=
  need sshd openssh-server
  [ -z "$wanted" ] && exit 0
fi
echo "the tests need:$wanted; install it (Debian, Ubuntu: sudo apt-get install$wanted)" >&2
[ -z "${CI:-}" ] # without CI, tests that need an sshd are skipped and say so; with CI they must not be
