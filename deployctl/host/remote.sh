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

sha() { if has sha256sum; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

sha_of() {
  D_Y=$(if able openssl; then openssl dgst -sha256 -r; else sha; fi <"$1")
  printf '%s' "${D_Y%% *}"
}

# able WHAT: do the tools here know more than every host's do? Tried once; a run knows it from its probe.
able() {
  case " $D_ABLE " in
  *" $1 "*) return 0 ;;
  *" no-$1 "*) return 1 ;;
  esac
  if "can_$1" >/dev/null 2>&1; then D_ABLE="$D_ABLE $1"; else D_ABLE="$D_ABLE no-$1" && return 1; fi
}

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

# Is there a limit to the size of files, and did one of this run come as far? A limit below what dd tries below is one.
at_file_limit() {
  D_MAX=$(ulimit -f 2>/dev/null) # in blocks of 512 bytes
  case $D_MAX in '' | *[!0-9]*) return 1 ;; esac
  [ "$D_MAX" -lt 128 ] ||
    [ -n "$(find "$D_ROOT/.deployctl/incoming/$D_RUN" -type f -size "+$((D_MAX - 1))" 2>/dev/null | head -n 1)" ]
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

do_blame() { blame "$D_ROOT/.deployctl/incoming/$D_RUN" 20 "$D_WHY"; }

# ---- probe: everything the plan needs to know, in one round trip; changes nothing ------------------------------

do_probe() {
  for D_T in scp tar gzip zstd sha256sum shasum find awk readlink; do
    has "$D_T" && say tool "$D_T"
  done
  for D_T in openssl print blocks; do
    able "$D_T"
  done
  say able "$D_ABLE"
  D_DIR=$(nearest "$D_ROOT")
  say nearest "$D_DIR"
  [ -d "$D_DIR" ] || say not_a_directory "$D_DIR"
  [ -w "$D_DIR" ] || say read_only "$D_DIR"
  say kib "$(free_kib "$D_DIR")"
  say inodes "$(free_inodes "$D_DIR")"
  say user "$(id -un 2>/dev/null)"
  cd "$D_ROOT" 2>/dev/null || return 0
  for D_T in releases shared .deployctl .deployctl/incoming .deployctl/manifests .deployctl/history.jsonl; do
    [ -e "$D_T" ] && [ ! -w "$D_T" ] && say read_only "$D_ROOT/$D_T"
  done
  [ ! -e .deployctl/history.jsonl ] || [ -f .deployctl/history.jsonl ] || say not_a_file "$D_ROOT/.deployctl/history.jsonl"
  [ -r .deployctl/lock.d/beat ] && say beat "$(cat .deployctl/lock.d/beat 2>/dev/null)"
  [ -r .deployctl/version ] && say version "$(head -n 1 .deployctl/version)"
  for D_T in releases .deployctl .deployctl/incoming .deployctl/manifests; do
    [ -L "$D_T" ] && say leads_away "$D_ROOT/$D_T"
  done
  if [ -L current ]; then
    [ "$(readlink current | wc -l | tr -d ' ')" = 1 ] || say current_is "link with a line break in its text"
    say current "$(readlink current)"
  elif [ -d current ]; then
    say current_is directory
  elif [ -e current ]; then
    say current_is file
  fi
  for D_T in .deployctl/manifests/*; do
    if [ -f "$D_T" ] && [ -d "releases/${D_T##*/}" ]; then
      say manifest "${D_T##*/} $(sha_of "$D_T")"
    fi
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
    tail -n 40 .deployctl/history.jsonl | sed "s/^/$D_NONCE history /"
    printf '\n' # a torn last line has no end
  fi
  [ -z "${D_SCAN-}" ] || (scan)
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
  D_ERR=$(mkdir -p "$D_ROOT/releases" "$D_ROOT/shared" "$D_T/manifests" "$D_T/stats" "$D_T/incoming/$D_RUN" 2>&1) ||
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
  done
  return 0
}

is_run() { case $1 in *.parts) return 1 ;; esac && [ -d "$1" ]; } # not the proven parts of an artifact

owned() { # in .deployctl: does the lock name this run?
  [ -r lock.owner ] && read -r D_TOKEN D_GROUP D_REST <lock.owner || return 1
  [ "$D_TOKEN" = "$D_RUN" ]
}

drop_run() { # the directory of a run, and what a copy of that run left beside its destination
  if [ -f "$1/copy" ] && { IFS= read -r D_BESIDE && IFS= read -r D_N; } <"$1/copy"; then
    D_N=${D_BESIDE%/}/.deployctl-${1##*/}-$D_N
    rm -f "$D_N.new" "$D_N.old" 2>/dev/null || return
  fi
  remove "$1"
}

remove() { # a tree of ours; directories without write permission in it are made removable
  rm -rf "$1" 2>/dev/null && return
  find "$1" -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null
  rm -rf "$1" 2>/dev/null
}

# ---- stage: from what is here to a verified releases/ID ---------------------------------------------------------

do_stage() {
  umask 022
  cd "$D_ROOT/.deployctl/incoming/$D_RUN" 2>/dev/null || fail 20 "$D_ROOT/.deployctl/incoming/$D_RUN is gone"
  D_FREE=$(nearest "$D_ROOT/.deployctl")
  [ -z "$D_SENT" ] || arrived
  [ -z "$D_EARLY" ] || adopt
  case $D_FROM in
  upload | artifact) [ -n "$D_UNPACKED" ] || unpack "../$D_ARTIFACT" ;;
  delta) build ;;
  copy) copy_release "$D_BASE" ;;
  esac
  [ "$(sha_of manifest)" = "$D_TREE" ] || { rm -rf "../$D_ARTIFACT"; fail 33 "the manifest that arrived is not the one that was sent"; }
  note_files
  if [ "$D_FROM" = delta ]; then verify_built; else verify_tree tree manifest; fi ||
    { D_DOOMED=../$D_ARTIFACT; blame . 33 "$D_WRONG"; }
  [ "$D_FROM" != delta ] || [ -z "$D_HARD" ] || renew_base
  cd tree && share && cd .. || blame . 32 "cannot link shared files: $D_ERR"
  publish
}

arrived() {
  [ "$(sha_of part)" = "$D_SHA" ] ||
    blame . 33 "the artifact arrived damaged: $(size_of part) bytes, digest $(sha_of part | cut -c1-12), not $D_SIZE bytes, $(printf %s "$D_SHA" | cut -c1-12)"
  mv -f part "../$D_ARTIFACT"
}

adopt() { # parts that came before anybody knew what they are parts of
  D_ARTIFACT=${D_ARTIFACT%.parts}.parts
  [ ! -e "../$D_ARTIFACT" ] || remove "../$D_ARTIFACT"
  D_ERR=$(mv -f early.tar.zst.parts "../$D_ARTIFACT" 2>&1) || blame . 32 "cannot keep the parts: $D_ERR"
}

unpack() {
  [ ! -e tree ] || remove tree
  mkdir tree
  untar "$1"
  lock_directories
}

untar() { # ARTIFACT [MEMBER]: all of it, or a member with what is in it
  umask 0 # busybox's tar, unless root runs it, leaves modes to the umask
  D_ERR=$(archive "$1" 2>&1 | untar_stream ${2+"$2"} 2>&1) || {
    D_STATUS=$?
    case $1 in *.parts) ;; *) D_DOOMED=$1 ;; esac # each of those was proven just now
    blame . 33 "tar failed with status $D_STATUS: $D_ERR"
  }
  umask 022
}

untar_stream() { if able blocks; then tar -xpo -b 128 -f - "$@"; else tar -xpof - "$@"; fi; }

archive() { # ARTIFACT: what is in it; a word of what went wrong spoils it for tar
  case $1 in
  *.parts) parts_of "$1" | unzip_as "${1%.parts}" ;;
  *) unzip_as "$1" <"$1" ;;
  esac
}

parts_of() { # ARTIFACT: their bytes in order
  D_N=1
  while [ -f "$1/$D_N" ]; do
    cat "$1/$D_N"
    D_N=$((D_N + 1))
  done
}

unzip_as() {
  case $1 in
  *.zst) zstd -dcq || echo "zstd failed with status $?" >&2 ;;
  *) gzip -dc || echo "gzip failed with status $?" >&2 ;;
  esac
}

# Directories that their owner may not write to come with rwx, so that any tar can fill them; here they get their modes.
lock_directories() {
  D_T=
  for D_M in $D_MODES; do case $D_M in d:7[0-7][0-7] | f:*) ;; *) D_T=$D_M ;; esac; done
  [ -n "$D_T" ] || return 0
  sed -n 's/^d \(0[0-6][0-7][0-7]\) 0 - /d \1 /p' manifest | awk '{ l[NR] = $0 } END { for (i = NR; i; i--) print l[i] }' |
    octal_names | while read -r _ D_MODE && IFS= read -r D_NAME; do
    D_FILE=$(printf '%bx' "$D_NAME")
    chmod "$D_MODE" "tree/${D_FILE%x}"
  done
}

copy_release() {
  remove tree
  D_ERR=$(cp -f "../../manifests/$1" manifest 2>&1) || blame . 33 "cannot copy the manifest of $1: $D_ERR"
  D_ERR=$(cp -RPp "../../../releases/$1" tree 2>&1) || blame . 33 "cannot copy release $1: $D_ERR"
}

publish() {
  [ ! -e "../../../releases/$D_ID" ] && [ ! -L "../../../releases/$D_ID" ] || fail 33 "releases/$D_ID appeared meanwhile"
  chmod 755 tree
  for D_T in "../../manifests/$D_ID.altered" "../../stats/$D_ID"; do
    [ ! -e "$D_T" ] || rm -f "$D_T"
  done
  note_links "$D_ROOT/.deployctl/manifests/$D_ID"
  D_ERR=$(mv -f manifest "../../manifests/$D_ID" 2>&1 && mv tree "../../../releases/$D_ID" 2>&1) ||
    blame "$D_ROOT" 32 "cannot move the release into place: $D_ERR"
  keep_record "$D_ID"
  if [ "$D_FROM" = delta ] && [ -n "$D_HARD" ]; then
    sync_release
    settle_shared
  else
    touch "../../manifests/$D_ID"
    sync_release
    outlast "../../manifests/$D_ID"
  fi
}

# Inodes that are also those of a release that may be live: none may have been written to since the manifest was settled
# at the end of `build`. Its new time is one from before this look, so that what comes later is newer.
settle_shared() {
  D_AT=$D_ROOT/.deployctl/incoming/$D_RUN/at
  : >"$D_AT"
  settle "$D_AT"
  if able print; then
    D_T=$(find "../../../releases/$D_ID" -type f -cnewer "../../manifests/$D_ID" -print -quit 2>/dev/null)
  else
    set -- -newer "../../manifests/$D_ID" ! -newer "$D_AT" # a time from the source may lie in the future
    ! find . -prune -cnewer . >/dev/null 2>&1 || set -- -cnewer "../../manifests/$D_ID"
    D_T=$(find "../../../releases/$D_ID" -type f "$@" 2>/dev/null | head -n 1)
  fi
  if [ -n "$D_T" ]; then
    do_discard
    fail 33 "files of $D_BASE were written to while the release was made"
  fi
  touch -r "$D_AT" "../../manifests/$D_ID"
}

# What a disk has refused may still read well from memory: nobody is to find it and believe it.
sync_release() {
  synced try "../../manifests/$D_ID" "../../manifests" "$D_ROOT/releases" && return
  (blame "$D_ROOT/releases" 32 "the disk did not take releases/$D_ID for good: $D_ERR")
  do_discard
  exit 1
}

# A release that is here under the very id: verified where it stands.
do_reverify() {
  cd "$D_ROOT" || fail 32 "cannot enter $D_ROOT"
  [ "$(sha_of ".deployctl/manifests/$D_ID")" = "$D_TREE" ] || fail 33 "the manifest of $D_ID is not the one of this tree"
  cd releases && verify_tree "$D_ID" "../.deployctl/manifests/$D_ID" || fail 33 "$D_WRONG"
  cd "$D_ID" && share || blame . 32 "cannot link shared files: $D_ERR"
  note_links "$D_ROOT/.deployctl/manifests/$D_ID"
  settle "$D_ROOT/.deployctl/manifests/$D_ID"
}

# A staged release that is about to be made live by another run than the one that staged it: read again, whole.
do_ready() {
  do_prepare
  cd "$D_ROOT/releases" || fail 32 "cannot enter $D_ROOT/releases"
  [ "$(sha_of "../.deployctl/manifests/$D_ID")" = "$D_TREE" ] || fail 33 "the manifest of $D_ID changed meanwhile"
  verify_promised "$D_ID" "../.deployctl/manifests/$D_ID" || fail 33 "$D_WRONG"
  settle "../.deployctl/manifests/$D_ID"
}

# From the end of this on, whatever changes in the release is newer than its manifest. Clocks of file systems tick every
# few milliseconds, busybox's find knows only whole seconds: a change within the same tick would go unnoticed.
settle() { touch "$1" && outlast "$1"; }

outlast() { # FILE: until what is written now is newer
  D_TICK=$D_ROOT/.deployctl/incoming/$D_RUN/tick
  for D_N in 1 2 3 4 5 6 7 8 9 10; do
    for D_T in 1 2 3 4 5 6 7 8 9 10 11 12; do
      : >"$D_TICK"
      ! { able print && [ "$D_TICK" -nt "$1" ]; } || return 0 # some shells know only whole seconds
      [ -z "$(find "$D_TICK" -newer "$1")" ] || return 0
      sleep 0.01 2>/dev/null
    done
  done
}

# The live release that should stay: only when something in it is newer than its manifest, or when the probe found a file
# that is not as promised (the clock may have been set back before an edit), is it read again.
do_inspect() {
  cd "$D_ROOT/releases" || fail 32 "cannot enter $D_ROOT/releases"
  D_WRONG=$(not_linked)
  if [ -n "$D_WRONG" ]; then
    if [ -n "$D_DRY" ]; then say touched "$D_WRONG"; else say edited "$D_WRONG"; fi
    return 0
  fi
  [ -e "../.deployctl/manifests/$D_ID.altered" ] && D_WRONG=altered || changed_since "$D_ID" || { [ -n "${D_DIFFERS-}" ] && D_WRONG=changed; } || return 0
  [ -z "$D_DRY" ] || { say touched "$(one_line "$D_WRONG")"; return 0; }
  verify_promised "$D_ID" "../.deployctl/manifests/$D_ID" && return 0
  say edited "$(one_line "$D_WRONG")"
}

not_linked() { # what came to be shared since it was staged, or whose link is gone
  (
    share_dir() { [ "$(readlink "$D_ID/$1" 2>/dev/null)" = "$2shared/$1" ] || { one_line "$1 is not linked to shared/$1"; exit 1; }; }
    share_file() { share_dir "$@"; }
    share
  )
}

# A staged release that is not what its manifest says and that was never live.
do_discard() {
  cd "$D_ROOT" || fail 32 "cannot enter $D_ROOT"
  [ "$(readlink current 2>/dev/null)" = "releases/$D_ID" ] && fail 33 "$D_ID is live"
  rm -f ".deployctl/manifests/$D_ID" ".deployctl/manifests/$D_ID.settled" ".deployctl/manifests/$D_ID.altered" ".deployctl/stats/$D_ID"
  mv "releases/$D_ID" ".deployctl/incoming/$D_RUN/old" && remove ".deployctl/incoming/$D_RUN/old"
}

changed_since() {
  if able print; then
    D_WRONG=$(find "$1" -cnewer "../.deployctl/manifests/$1" -print -quit 2>/dev/null)
    [ -z "$D_WRONG" ] || ! as_recorded "$1" || D_WRONG=
  else
    D_SINCE=-newer
    find . -prune -cnewer . >/dev/null 2>&1 && D_SINCE=-cnewer
    D_WRONG=$(find "$1" "$D_SINCE" "../.deployctl/manifests/$1" 2>/dev/null | head -n 1)
  fi
  [ -n "$D_WRONG" ]
}

# ---- shared: what outlives releases is linked relatively into each -----------------------------------------------
# The generated function `share` calls these with the path and the way up from its directory.

share_dir() {
  D_ERR=$(mkdir -p "$D_ROOT/shared/$1" 2>&1) && link_shared "$@"
}

share_file() {
  if [ ! -e "$D_ROOT/shared/$1" ]; then
    fail 32 "the shared file $1 is missing: put it at $D_ROOT/shared/$1"
  fi
  link_shared "$@"
}

make_way() { # directories of the release above a shared path; without the setgid bit that a deploy root may hand down
  [ ! -d "./$1" ] || return 0
  D_ERR=$(mkdir -p "./$1" 2>&1) || return 1
  D_UP=$1
  while chmod g-s "./$D_UP" && [ "$D_UP" != "${D_UP%/*}" ]; do D_UP=${D_UP%/*}; done
}

link_shared() {
  case $1 in */*) make_way "${1%/*}" || return 1 ;; esac
  [ -L "./$1" ] && [ "$(readlink "./$1")" = "$2shared/$1" ] && return 0
  [ ! -e "./$1" ] && [ ! -L "./$1" ] || { D_ERR="the release brings $1 itself"; return 1; }
  D_ERR=$(ln -s "$2shared/$1" "./$1" 2>&1)
}

# ---- activate and revert: one rename, read back -------------------------------------------------------------------

do_activate() {
  prove_lock # first: whoever took it may have removed what the checks below look at
  cd "$D_ROOT" || fail 32 "cannot enter $D_ROOT"
  [ -d "releases/$D_ID" ] && [ -f ".deployctl/manifests/$D_ID" ] || fail 33 "releases/$D_ID is not there"
  [ "$(sha_of ".deployctl/manifests/$D_ID")" = "$D_TREE" ] || fail 33 "the manifest of $D_ID was changed after it was staged"
  if (cd releases && changed_since "$D_ID"); then
    (cd releases && { verify_promised "$D_ID" "../.deployctl/manifests/$D_ID" || fail 33 "changed after it was staged: $D_WRONG"; }) || exit 1
  fi
  prove_lock
  record "$D_RECORD"
  switch_to "releases/$D_ID"
  synced ".deployctl/incoming/$D_RUN/try" . || blame "$D_ROOT" 32 "the disk did not take the switch for good: $D_ERR"
}

switch_to() { # TARGET [DIRECTORY]
  if [ ! -L current ] && [ -e current ]; then
    fail 32 "$D_ROOT/current is not a link: move it away, deployctl makes it a link to the release"
  fi
  D_DIR=.deployctl/incoming/$D_RUN/${2-switch}
  [ ! -L "$D_DIR/current" ] || rm -f "$D_DIR/current"
  D_ERR=$( (mkdir -p "$D_DIR" && ln -s -- "$1" "$D_DIR/current" && mv -f "$D_DIR/current" ./) 2>&1) ||
    blame "$D_ROOT" 32 "cannot switch current: $D_ERR"
  [ "$(readlink current)" = "$1" ] || fail 33 "current reads $(readlink current) after the switch, not $1"
  say live "$1"
}

record() { # behind a torn last line, as a crash leaves it, not onto it
  [ -n "$1" ] || return 0
  [ ! -s "$D_ROOT/.deployctl/history.jsonl" ] || [ -z "$(tail -c 1 "$D_ROOT/.deployctl/history.jsonl")" ] ||
    printf '\n' >>"$D_ROOT/.deployctl/history.jsonl"
  printf '%s\n' "$1" >>"$D_ROOT/.deployctl/history.jsonl" || blame "$D_ROOT/.deployctl" 32 "cannot write history.jsonl"
}

# A switch that was given up may still come, on a host that is slow to kill it: without its directory it can't.
fence_switch() {
  D_DIR=.deployctl/incoming/$D_RUN/switch
  [ ! -d .deployctl/incoming ] || mkdir -p ".deployctl/incoming/$D_RUN" 2>/dev/null
  for D_N in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf "$D_DIR" 2>/dev/null
    (: >"$D_DIR") 2>/dev/null && return
  done
}

# Back to what was served: D_PREVIOUS is the exact text of the old link, or empty for none. A link that is not ours any
# more is left alone. Says `reverted` where it switched back, also when that was an earlier try whose answer got lost.
do_revert() {
  cd "$D_ROOT" || fail 32 "cannot enter $D_ROOT"
  fence_switch
  D_NOW=$(readlink current 2>/dev/null)
  D_MARK=.deployctl/incoming/$D_RUN/reverted
  D_BACK=
  if [ "$D_NOW" = "releases/$D_ID" ]; then
    D_BACK=1
    (: >"$D_MARK") 2>/dev/null
    if [ -n "$D_PREVIOUS" ]; then
      switch_to "$D_PREVIOUS" back
    else
      rm -f current || blame "$D_ROOT" 32 "cannot remove current"
    fi
    synced ".deployctl/incoming/$D_RUN/try" . || say unsynced "$(one_line "$D_ERR")"
    record "$D_RECORD"
  fi
  [ -z "$D_BACK" ] && [ ! -e "$D_MARK" ] || say reverted yes
  say live "$(readlink current 2>/dev/null)"
}

do_confirm() { # the record comes last: a host that is killed in between is confirmed, and swept, by the next push
  if [ -n "${D_ID-}" ] && [ "$(readlink "$D_ROOT/current" 2>/dev/null)" != "releases/$D_ID" ]; then
    say live "$(readlink "$D_ROOT/current" 2>/dev/null)" # another run was here, and what it made live is its own to confirm
    return 0
  fi
  cd "$D_ROOT/.deployctl/incoming" || fail 32 "cannot enter $D_ROOT/.deployctl/incoming"
  if (cd .. && owned); then
    for D_T in * .[!.]*; do
      [ -e "$D_T" ] && remove "$D_T"
    done
  else
    remove "$D_RUN"
  fi
  record "$D_RECORD"
  say live "$(readlink "$D_ROOT/current")"
}

# After an abort: the unproven goes, proven artifacts and staged trees stay.
do_clean() {
  (cd "$D_ROOT/.deployctl/incoming" 2>/dev/null && drop_run "$D_RUN")
  say live "$(readlink "$D_ROOT/current" 2>/dev/null)"
}

do_manifest() {
  cd "$D_ROOT/.deployctl/manifests" || return 0
  [ -f "$D_ID" ] && sed "s/^/$D_NONCE entry /" "$D_ID"
}
