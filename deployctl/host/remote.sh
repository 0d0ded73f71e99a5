# What runs on a host: POSIX sh with the tools named in TOOLS, nothing of ours is installed there.
#
# Sent to `sh -s` once; then each command is a subshell of assignments of D_* values (host/script.py) whose last line calls
# `main`. It answers in lines that begin with $D_NONCE, a random word of this one command, so noise of a login shell is
# never taken for an answer:
#     NONCE key rest of the line
# The shell itself says `NONCE exit STATUS` when the subshell is over, whatever became of it.
# A step that fails says `fail CODE MESSAGE` with a code of deployctl.errors.Code and ends.

say() { printf '%s %s %s\n' "$D_NONCE" "$1" "$2"; }

one_line() { printf '%s' "$1" | tr '\n\r\t' '   ' | cut -c1-400; }

fail() { say fail "$1 $(one_line "$2")"; exit 1; }

# A command on a host outlives its connection; so whoever waits for the end of our standard input kills us with it.
# It must be gone before the command's end is told: what comes then is for the shell.
main() {
  [ "$D_DO" != receive ] || { take_parts; exit; }
  exec 3<&0 </dev/null
  (while read -r _; do :; done <&3; kill -s KILL 0) >/dev/null 2>&1 &
  D_WATCH=$!
  exec 3<&-
  printf '\n'
  say began "$D_DO" # from here on a silent end is no longer that of a login shell that runs nothing
  (do_"$D_DO")
  D_STATUS=$?
  if [ "$D_STATUS" -gt 128 ]; then # the step was killed: what it had begun, a rename say, must not go on without it
    trap '' TERM
    kill -s TERM 0
    say done "$D_STATUS"
    say exit "$D_STATUS"
    kill -s KILL 0
  fi
  kill "$D_WATCH" 2>/dev/null
  wait "$D_WATCH" 2>/dev/null
  say done "$D_STATUS"
  exit "$D_STATUS"
}

# ---- small tools ---------------------------------------------------------------------------------------------

has() { command -v "$1" >/dev/null 2>&1; }

D_SUMS=sha256sum
has sha256sum || D_SUMS='shasum -a 256'

sha() { $D_SUMS "$@"; }

sha_of() { # for large files
  D_Y=$(if able openssl; then openssl dgst -sha256 -r; else sha; fi <"$1")
  printf '%s' "${D_Y%% *}"
}

has_sum() { # FILE SHA256, for small ones: openssl takes 3 ms to begin
  D_Y=$($D_SUMS <"$1") && [ "${D_Y%% *}" = "$2" ]
}

# able WHAT: do the tools here know more than every host's do? Tried once, by the first command that asks, which says so.
able() {
  is_able "$1" && return
  ! is_unable "$1" || return
  if "can_$1" </dev/null >/dev/null 2>&1; then D_ABLE="$D_ABLE $1"; else D_ABLE="$D_ABLE no-$1" && return 1; fi
}

is_able() { case " $D_ABLE " in *" $1 "*) ;; *) return 1 ;; esac }

is_unable() { case " $D_ABLE " in *" no-$1 "*) ;; *) return 1 ;; esac }

# openssl uses the processor's SHA instructions, which most builds of sha256sum don't: 0.08 s for 80 MB instead of 0.28.
can_openssl() { case $(openssl dgst -sha256 -r </dev/null) in e3b0c442*) ;; *) return 1 ;; esac; }

can_print() { find . -prune -printf '' -fprintf /dev/null '' -cnewer . -quit; } # as GNU's find, whose times are as fine as the file system's

can_blocks() { tar -b 128 -cf /dev/null -T /dev/null; } # tar that reads 64 KiB at a time, all that a pipe holds, takes a quarter less

size_of() {
  D_Y=$(wc -c <"$1")
  printf '%s' "${D_Y##* }" # some pad it with spaces
}

nearest() { # the path itself or the nearest ancestor that exists
  D_N=$1
  while [ ! -e "$D_N" ] && [ "$D_N" != / ]; do D_N=${D_N%/*}; D_N=${D_N:-/}; done
  printf '%s' "$D_N"
}

free_both() { # DIR: KiB and inodes, by one process where df knows how
  D_T=$(df -k --output=avail,iavail "$1" 2>/dev/null) || D_T=
  # shellcheck disable=SC2086
  set -- "$1" ${D_T##*"
"}
  case $#,${2-} in
  3,[0-9]*) ;;
  *) set -- "$1" "$(free_kib "$1")" "$(free_inodes "$1")" ;;
  esac
  say kib "$2"
  say inodes "$3"
}

free_kib() { free_of "$(df -Pk "$1" 2>/dev/null)"; }

free_inodes() { free_of "$(df -Pi "$1" 2>/dev/null)"; }

free_of() ( # the number before the percentage in the last line of df
  set -f
  D_N=
  for D_M in ${1##*"
"}; do
    case $D_N,$D_M in ,* | *[!0-9]*,*) ;; *,[0-9-]*%) printf '%s' "$D_N" && return ;; esac
    D_N=$D_M
  done
)

# blame DIR CODE MESSAGE: a step failed in DIR; no space, no right, or else CODE, found by trying, not by wording.
# Only then D_DOOMED, an artifact or its parts, is what is wrong, and removed: not before, since that would make room.
blame() {
  D_B=$(nearest "$1")
  [ -d "$D_B" ] || D_B=${D_B%/*}
  if at_file_limit; then
    fail 31 "no file may be larger than $((D_MAX / 2)) KiB for $(id -un 2>/dev/null) (ulimit -f; see limits.conf there): $3"
  fi
  if [ "$(free_inodes "$D_B")" = 0 ]; then
    fail 31 "no inodes left on $D_B: $3"
  fi
  if [ ! -w "$D_B" ] || ! (: >"$D_B/.deployctl-$D_RUN") 2>/dev/null; then
    [ "$(free_kib "$D_B")" = 0 ] && fail 31 "no space left on $D_B: $3"
    fail 32 "$D_B is not writable for $(id -un 2>/dev/null): $3"
  fi
  if ! dd if=/dev/zero of="$D_B/.deployctl-$D_RUN" bs=65536 count=1 2>/dev/null; then
    rm -f "$D_B/.deployctl-$D_RUN"
    fail 31 "no space left on $D_B (has $(free_kib "$D_B") KiB): $3"
  fi
  rm -f "$D_B/.deployctl-$D_RUN" 
  [ -z "${D_DOOMED-}" ] || rm -rf "$D_DOOMED"
  fail "$2" "$3"
}

# Is there a limit to the size of files, and did one that came come as far? A limit below what dd tries below is one.
at_file_limit() {
  D_MAX=$(ulimit -f 2>/dev/null) # in blocks of 512 bytes
  case $D_MAX in '' | *[!0-9]*) return 1 ;; esac
  [ "$D_MAX" -lt 128 ] ||
    [ -n "$(find "$D_ROOT/.deployctl/incoming" -type f -size "+$((D_MAX - 1))" 2>/dev/null | head -n 1)" ]
}

# synced TRY PATH…: whether the disk has taken these for good, as far as anybody can tell. A `sync` that knows no files and a
# file system that syncs no directories refuse without a fault: that is found out by trying, where TRY is a free name.
synced() {
  D_TRY=$1
  shift
  has sync || return 0
  for D_N; do [ -r "$D_N" ] || return 0; done # it could not be asked about
  D_ERR=$(sync "$@" 2>&1) && return
  syncs_files && syncs_directories && return 1
  sync 2>/dev/null || :
}

syncs_files() { sync -f /proc 2>/dev/null || sync -f /dev 2>/dev/null; } # these have no disk that could fail

syncs_directories() { # where not even a file can be synced, that is a fault
  mkdir "$D_TRY" 2>/dev/null && (: >"$D_TRY/file") 2>/dev/null || return 0
  ! sync "$D_TRY/file" 2>/dev/null || sync "$D_TRY" 2>/dev/null
  D_STATUS=$?
  rm -rf "$D_TRY"
  return "$D_STATUS"
}

record() { # behind a torn last line, as a crash leaves it, not onto it
  [ -n "$1" ] || return 0
  [ ! -s "$D_ROOT/.deployctl/history.jsonl" ] || [ -z "$(tail -c 1 "$D_ROOT/.deployctl/history.jsonl")" ] ||
    printf '\n' >>"$D_ROOT/.deployctl/history.jsonl"
  printf '%s\n' "$1" >>"$D_ROOT/.deployctl/history.jsonl" || blame "$D_ROOT/.deployctl" 32 "cannot write history.jsonl"
}

do_blame() { blame "$D_ROOT/.deployctl/incoming/$D_RUN" 20 "$D_WHY"; }

# ---- probe: everything the plan needs to know, in one round trip; changes nothing ------------------------------

do_probe() { # said in one piece: each line of its own would be a packet, and wake three threads
  D_SAID=$(look_round)
  D_STATUS=$?
  printf '%s\n' "$D_SAID"
  return $D_STATUS
}

look_round() {
  for D_T in scp tar gzip zstd sha256sum shasum find awk readlink; do
    has "$D_T" && say tool "$D_T"
  done
  D_DIR=$(nearest "$D_ROOT")
  say nearest "$D_DIR"
  [ -d "$D_DIR" ] || say not_a_directory "$D_DIR"
  [ -w "$D_DIR" ] || say read_only "$D_DIR"
  free_both "$D_DIR"
  say user "${LOGNAME:-$(id -un 2>/dev/null)}" # sshd sets it
  cd "$D_ROOT" 2>/dev/null || return 0
  for D_T in releases shared .deployctl .deployctl/incoming .deployctl/manifests .deployctl/history.jsonl; do
    [ -e "$D_T" ] && [ ! -w "$D_T" ] && say read_only "$D_ROOT/$D_T"
  done
  [ ! -e .deployctl/history.jsonl ] || [ -f .deployctl/history.jsonl ] || say not_a_file "$D_ROOT/.deployctl/history.jsonl"
  [ -r .deployctl/lock.d/beat ] && say beat "$(cat .deployctl/lock.d/beat 2>/dev/null)"
  [ -r .deployctl/version ] && read -r D_T <.deployctl/version && say version "$D_T"
  for D_T in releases .deployctl .deployctl/incoming .deployctl/manifests; do
    [ -L "$D_T" ] && say leads_away "$D_ROOT/$D_T"
  done
  D_LINK=
  if [ -L current ]; then
    D_T=$(readlink current && echo x)
    D_T=${D_T%"
x"}
    D_LINK=$D_T
    case $D_T in *"
"*) say current_is "link with a line break in its text" ;; esac
    say current "$D_T"
  elif [ -d current ]; then
    say current_is directory
  elif [ -e current ]; then
    say current_is file
  fi
  set --
  for D_T in .deployctl/manifests/*; do
    is_release_id "${D_T##*/}" && [ -f "$D_T" ] && [ -d "releases/${D_T##*/}" ] && set -- "$@" "$D_T"
  done
  [ $# = 0 ] || for D_T in $($D_SUMS "$@" 2>/dev/null); do # a digest and a path in turn, no blanks in either
    case $D_T in */*) say manifest "${D_T##*/} $D_Y" ;; *) D_Y=$D_T ;; esac
  done
  for D_T in releases/*; do
    [ -d "$D_T" ] && [ ! -L "$D_T" ] && say release "${D_T##*/}"
  done
  for D_T in .deployctl/incoming/*; do
    [ -f "$D_T" ] && say artifact "${D_T##*/}"
  done
  for D_T in .deployctl/incoming/*.parts/*; do
    [ -f "$D_T" ] && say part "${D_T#.deployctl/incoming/}"
  done
  if [ -r .deployctl/history.jsonl ]; then
    D_T=$(tail -n 40 .deployctl/history.jsonl)
    (IFS='
' && set -f && for D_T in $D_T; do say history "$D_T"; done)
  fi
  [ -z "${D_SCAN-}" ] || (scan && say able "$D_ABLE") || :
}

# ---- prepare: our directories, and nothing of a dead run in them -----------------------------------------------

do_prepare() {
  make_room
  sweep_dead
  say dir "$D_ROOT/.deployctl/incoming/$D_RUN"
}

make_room() {
  umask 022
  D_T=$D_ROOT/.deployctl
  D_IN=$D_T/incoming/$D_RUN
  [ -e "$D_IN/switch" ] || D_IN=$D_IN/switch # what is no directory there is a fence
  D_ERR=$(mkdir -p "$D_ROOT/releases" "$D_ROOT/shared" "$D_T/manifests" "$D_T/stats" "$D_IN" 2>&1) ||
    blame "$D_ROOT" 32 "cannot create directories in $D_ROOT: $D_ERR"
  cd "$D_ROOT/.deployctl" || fail 32 "cannot enter $D_ROOT/.deployctl"
  if [ ! -e version ]; then
    D_ERR=$( (echo 1 >version.$D_RUN && mv -f version.$D_RUN version) 2>&1) || blame "$PWD" 32 "cannot write version: $D_ERR"
  fi
}

sweep_dead() { # in .deployctl; only whoever holds the lock knows that the other runs are dead
  owned || return 0
  for D_T in incoming/*; do
    is_run "$D_T" && [ "$D_T" != "incoming/$D_RUN" ] && drop_run "$D_T"
    case $D_T in *.parts) cut_growing "$D_T" ;; esac
  done
  return 0
}

# Of a file that came in slices, under new-FIRST-MIB-RUN.ATTEMPT.K, those stay that were proven: the first K, each of so many MiB.
cut_growing() { # DIR [RUN]
  for D_M in "$1"/new-*-"${2-}"*.*.*; do
    D_Y=${D_M##*/new-}
    D_UNIT=${D_Y#*-}
    D_UNIT=${D_UNIT%%-*}
    D_FIRST=${D_Y%%-*}
    D_K=${D_Y##*.}
    case $D_FIRST,$D_UNIT,$D_K in *[!0-9,]* | ,* | *,,* | *,) continue ;; esac
    cut_at "$D_M" "$D_FIRST" "$D_K" $((D_K * D_UNIT))
  done
}

cut_at() { # FILE FIRST K MIB: nothing but K slices, so many MiB, stays of it
  if [ "$3" = 0 ] || [ ! -f "$1" ] || ! dd if=/dev/null of="$1" bs=1048576 seek="$4" 2>/dev/null ||
    ! mv -f "$1" "${1%/*}/$2-$(($2 + $3 - 1))" 2>/dev/null; then
    rm -rf "$1"
  fi
}

is_release_id() { case $1 in [0-9]*T[0-9]*Z-????????) ;; *) false ;; esac }

is_run() { case $1 in *.parts) return 1 ;; esac && [ -d "$1" ]; } # not the proven parts of an artifact

owned() { # in .deployctl: does the lock name this run?
  [ -r lock.owner ] && read -r D_TOKEN D_GROUP D_REST <lock.owner || return 1
  [ "$D_TOKEN" = "$D_RUN" ]
}

drop_run() { # the directory of a run, and what a copy of that run left beside its destination
  keep_proven "$1"
  if [ -f "$1/copy" ] && { IFS= read -r D_BESIDE && IFS= read -r D_N; } <"$1/copy"; then
    D_N=${D_BESIDE%/}/.deployctl-${1##*/}-$D_N
    rm -f "$D_N.new" "$D_N.old" 2>/dev/null || return
  fi
  remove "$1"
}

keep_proven() { # RUN: of files that came as they are, what was proven: it goes back to, or stays with, the parts of its artifact
  [ ! -d "$1/tree" ] || [ ! -f "$1/placed" ] || put_back "$1" <"$1/placed"
  for D_Q in "${1%/*}"/*.parts; do cut_growing "$D_Q" "${1##*/}"; done
}

put_back() ( # whoever calls it has values of the same names
  D_WAS=
  read -r D_Q || return 0
  while read -r D_N D_Y && IFS= read -r D_NAME; do
    D_FILE=$(printf '%bx' "$1/tree/$D_NAME")
    D_FILE=${D_FILE%x}
    D_TO=$1/../$D_Q/$D_N-$D_Y
    if [ -f "$D_FILE" ]; then
      mv -f "$D_FILE" "$D_TO"
    elif [ "$D_FILE" = "$D_WAS" ]; then # more was put behind it
      mv -f "$D_HELD" "$D_TO"
    fi
    D_WAS=$D_FILE
    D_HELD=$D_TO
  done 2>/dev/null
)

remove() { # a tree of ours; directories without write permission in it are made removable
  rm -rf "$1" 2>/dev/null && return
  find "$1" -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null
  rm -rf "$1" 2>/dev/null
}
