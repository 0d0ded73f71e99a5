# Staging: from what is here to a verified releases/ID, and a later look at one. Part of remote.sh.

do_stage() {
  umask 022
  cd "$D_ROOT/.deployctl/incoming/$D_RUN" 2>/dev/null || fail 20 "$D_ROOT/.deployctl/incoming/$D_RUN is gone"
  ! is_bulk || able openssl || :
  [ -z "$D_SENT" ] || arrived
  adopt_early
  D_BUILT= # upon another release, of which the record says what need not be read
  case $D_FROM in
  upload | artifact)
    [ -n "$D_UNPACKED" ] || unpack "../$D_ARTIFACT"
    [ -z "$D_BARE" ] || place_bare
    ;;
  delta) build ;;
  copy) build_same || copy_release "$D_BASE" ;;
  esac
  has_sum manifest "$D_TREE" || refuse_manifest
  note_tree
  if [ -n "$D_BUILT" ]; then verify_built; else verify_tree tree manifest; fi ||
    { D_DOOMED=${D_ARTIFACT:+../$D_ARTIFACT}; blame . 33 "$D_WRONG"; }
  [ -z "$D_BUILT" ] || [ -z "$D_HARD" ] || renew_base
  cd tree && share && cd .. || blame . 32 "cannot link shared files: $D_ERR"
  publish
  say able "$D_ABLE"
}

refuse_manifest() {
  [ "$D_FROM" != delta ] || has_sum "$D_TEXT" "$D_BASE_TREE" ||
    fail 33 "release $D_BASE, upon which the delta builds, is not what it was"
  [ -z "$D_ARTIFACT" ] || rm -rf "../$D_ARTIFACT"
  fail 33 "the manifest that arrived is not the one that was sent"
}

is_bulk() { [ -n "${D_BULK-1}" ]; } # is it worth while to find out how to go through much content fast?

arrived() {
  if is_bulk; then [ "$(sha_of part)" = "$D_SHA" ]; else has_sum part "$D_SHA"; fi ||
    blame . 33 "the artifact arrived damaged: $(size_of part) bytes, digest $(sha_of part | cut -c1-12), not $D_SIZE bytes, $(printf %s "$D_SHA" | cut -c1-12)"
  mv -f part "../$D_ARTIFACT"
}

adopt_early() { # parts that came before anybody knew what they are parts of
  [ -d early.tar.zst.parts ] || return 0
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
  ! is_bulk || able blocks || :
  umask 0 # busybox's tar, unless root runs it, leaves modes to the umask
  D_ERR=$(archive "$1" 2>&1 | untar_stream ${2+"$2"} 2>&1) || {
    D_STATUS=$?
    case $1 in *.parts) ;; *) D_DOOMED=$1 ;; esac # each of those was proven just now
    blame . 33 "tar failed with status $D_STATUS: $D_ERR"
  }
  umask 022
}

untar_stream() { if is_bulk && able blocks; then tar -xpo -b 128 -f - "$@"; else tar -xpof - "$@"; fi; }

archive() { # ARTIFACT: what is in it; a word of what went wrong spoils it for tar
  case $1 in
  *.parts) parts_of "$1" | unzip_as "${1%.parts}" ;;
  *) unzip_as "$1" <"$1" ;;
  esac
}

parts_of() { # ARTIFACT: their bytes in order; without files that came as they are
  D_N=1
  while :; do
    if [ -f "$1/$D_N" ]; then
      cat "$1/$D_N"
    else
      set -- "$1" "$1/$D_N"-*
      [ -f "$2" ] && [ "$D_N" -le "${2##*-}" ] || break
      D_N=${2##*-}
    fi
    D_N=$((D_N + 1))
  done
}

# Files that came as they are, in slices that were proven, go to their places. One that came whole, and was not written to since, is
# proven thereby; one that is put together of several is read again with all the others. What was `placed` goes back if nothing comes
# of it (keep_proven).
place_bare() {
  : >in_place && printf '%s\n' "$D_ARTIFACT" >placed || blame . 31 "cannot write a list"
  D_SINCE=-newer
  find . -prune -cnewer . >/dev/null 2>&1 && D_SINCE=-cnewer
  bare_lines | while read -r D_N D_LAST D_MIB D_MODE D_TIME && IFS= read -r D_NAME && IFS= read -r D_OCTETS; do
    D_FILE=$(printf '%bx' "tree/$D_OCTETS")
    D_FILE=${D_FILE%x}
    touch -r "${D_FILE%/*}" time # a directory keeps the one it came with
    place_slices
    D_ERR=$(chmod "$D_MODE" "$D_FILE" 2>&1) || blame . 32 "cannot put $D_NAME in its place: $D_ERR"
    TZ=UTC0 touch -t "$D_TIME" "$D_FILE" 2>/dev/null
    touch -r time "${D_FILE%/*}"
  done || exit 1
}

place_slices() { # D_N to D_LAST, as D_FILE: over what a base may have there, which need not be a file of its own
  D_FIRST=$D_N
  set -- "../$D_ARTIFACT/$D_N-$D_LAST"
  if [ -f "$1" ]; then
    D_T=x
    [ ! -f "proof-$D_N-$D_LAST" ] || D_T=$(find "$1" "$D_SINCE" "proof-$D_N-$D_LAST") || D_T=x
    move_slices "$1" "$D_LAST"
    [ -n "$D_T" ] || printf '%s\n' "$D_NAME" >>in_place || blame . 31 "cannot write a list"
    return
  fi
  while [ "$D_N" -le "$D_LAST" ]; do
    set -- "../$D_ARTIFACT/$D_N"-*
    D_Y=${1##*-}
    [ -f "$1" ] && [ "$D_N" -le "$D_Y" ] && [ "$D_Y" -le "$D_LAST" ] || fail 33 "slice $D_N of the artifact went away"
    if [ "$D_N" = "$D_FIRST" ]; then
      move_slices "$1" "$D_Y"
    else
      note_placed "$D_Y"
      # Whoever wrote to it over a connection that was lost may have written behind what was proven.
      D_ERR=$({ dd if=/dev/null of="$D_FILE" bs=1048576 seek=$(((D_N - D_FIRST) * D_MIB)) 2>/dev/null && cat "$1" >>"$D_FILE" && rm -f "$1"; } 2>&1) ||
        blame . 32 "cannot put $D_NAME in its place: $D_ERR"
    fi
    D_N=$((D_Y + 1))
  done
}

move_slices() { # FILE LAST
  D_ERR=$(mv -f "$1" "$D_FILE" 2>&1) || blame . 32 "cannot put $D_NAME in its place: $D_ERR"
  note_placed "$2"
}

note_placed() { printf '%s\n%s\n' "$D_FIRST $1" "$D_OCTETS" >>placed || blame . 31 "cannot write a list"; }

bare_lines() { # numbers of slices, MiB of each, mode and time; the name as in a manifest; the name for printf %b
  printf '%s' "$D_BARE" | awk "$D_OCTAL"'{ print $1, $2, $3, $4, $5; sub(/^[^ ]* [^ ]* [^ ]* [^ ]* [^ ]* /, ""); print; print octal($0) }'
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
  awk "$D_OCTAL"'/^d 0[0-6]/ { l[++n] = $2 "\n" octal(substr($0, 12)) } END { for (; n; n--) print l[n] }' manifest |
    while read -r D_MODE && IFS= read -r D_NAME; do
    D_FILE=$(printf '%bx' "$D_NAME")
    chmod "$D_MODE" "tree/${D_FILE%x}"
  done
}

copy_release() { # of which not all is as recorded, so that all of it will be read; it may have been copied by now
  [ -d tree ] || D_ERR=$(cp -RPp "../../../releases/$1" tree 2>&1) || blame . 33 "cannot copy release $1: $D_ERR"
  D_ERR=$(cp -f "../../manifests/$1" manifest 2>&1) || blame . 33 "cannot copy the manifest of $1: $D_ERR"
  own_root
  lock_directories
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
  [ ! -f stat ] || mv -f stat "../../stats/$D_ID"
  if [ -n "$D_BUILT" ] && [ -n "$D_HARD" ]; then
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
  has_sum ".deployctl/manifests/$D_ID" "$D_TREE" || fail 33 "the manifest of $D_ID is not the one of this tree"
  cd releases && verify_tree "$D_ID" "../.deployctl/manifests/$D_ID" || fail 33 "$D_WRONG"
  cd "$D_ID" && share || blame . 32 "cannot link shared files: $D_ERR"
  note_links "$D_ROOT/.deployctl/manifests/$D_ID"
  settle "$D_ROOT/.deployctl/manifests/$D_ID"
}

# A staged release that is about to be made live by another run than the one that staged it: read again, whole.
do_ready() {
  do_prepare
  cd "$D_ROOT/releases" || fail 32 "cannot enter $D_ROOT/releases"
  has_sum "../.deployctl/manifests/$D_ID" "$D_TREE" || fail 33 "the manifest of $D_ID changed meanwhile"
  verify_promised "$D_ID" "../.deployctl/manifests/$D_ID" || fail 33 "release $D_ID was altered there since it was staged: $D_WRONG"
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
