# An artifact that comes in parts: each is proven by its digest, kept as incoming/ARTIFACT.parts/N, and unpacked while the
# next one is on its way. Parts that are slices of a file are kept as N-M, one behind the other, for `place_bare`. Sent behind
# remote.sh, to a shell of its own.
#
# Lines on standard input:
#     part N SIZE SHA FILE [N-N]    it was put into the directory of the run under this name
#     part N SIZE SHA               it is said to be here, from an earlier run
#     slice N END SHA FILE SKIP COUNT FIRST LAST [sure]
#                                   it is in FILE, so many MiB behind SKIP, and so are FIRST to LAST; END is the size of FILE up to LAST.
#                                   FILE is one from an earlier run, or comes right now: once it is there for sure, that is told again
#     drop FILE                     it is of no use
#     named ARTIFACT                what these are parts of, where that was not known: from here on they outlive the run
#     end                           that was all
# Words of the answer, while it goes on: have FILE, ready, proven N, missing N, fed N, stopped N, and named 1.

# What main does for other commands: here standard input is read, and still its end is the end of us all.
take_parts() {
  exec 3<&0 </dev/null
  printf '\n'
  say began "$D_DO"
  pass_lines <&3 | {
    exec 3<&-
    (do_receive)
    D_STATUS=$?
    say done "$D_STATUS"
    say exit "$D_STATUS"
  }
}

pass_lines() {
  trap '' PIPE
  while IFS= read -r D_LINE; do
    printf '%s\n' "$D_LINE"
  done 2>/dev/null
  kill -s KILL 0
}

do_receive() {
  umask 022
  exec 5>&1
  say() { printf '%s %s %s\n' "$D_NONCE" "$1" "$2" >&5; }
  # From within a pipe: nothing else that belongs to it is to go on.
  fail() {
    say fail "$1 $(one_line "$2")"
    say done 1
    say exit 1
    kill -s KILL 0
  }
  enter_parts
  cut_growing "../$D_ARTIFACT"
  for D_T in "../$D_ARTIFACT"/*; do
    [ -f "$D_T" ] && say have "${D_T##*/}"
  done
  ! able openssl || :
  say able "$D_ABLE"
  say ready yes
  if [ "$D_FROM" = delta ]; then
    prove_parts >/dev/null
  else
    parts_of() { # a warning of a tool is nothing for tar
      D_HERE=$PWD
      cd "../$D_ARTIFACT" || fail 20 "$D_ARTIFACT is gone" # from within, since it may get another name
      { cd "$D_HERE" && prove_parts; } 2>/dev/null | feed_parts 2>/dev/null
    }
    unpack "../$D_ARTIFACT"
  fi
}

enter_parts() {
  cd "$D_ROOT/.deployctl/incoming/$D_RUN" 2>/dev/null || fail 20 "$D_ROOT/.deployctl/incoming/$D_RUN is gone"
  case $D_ARTIFACT in "$D_RUN"/*) ;; *) adopt_early ;; esac
  D_ERR=$(mkdir -p "../$D_ARTIFACT" 2>&1) || blame . 32 "cannot make a directory for parts: $D_ERR"
}

prove_parts() { # prints the numbers of those that can be fed, in their order
  D_NEXT=1
  D_AHEAD=' '
  while read -r D_WORD D_N D_SIZE D_SHA D_FILE D_AS D_COUNT D_FIRST D_LAST D_SURE; do
    case $D_WORD,$D_FILE in
    part,) prove_kept "../$D_ARTIFACT/$D_N" ;;
    part,*) keep_part && proven "$D_N" "${D_AS:+=}" ;;
    slice,new-*) prove_growing ;;
    slice,*) prove_slices ;;
    drop,*) rm -rf "../$D_ARTIFACT/$D_N" ;;
    named,*) D_ARTIFACT=$D_N && adopt_early && say named 1 ;;
    *) break ;;
    esac
  done
}

proven() { # N [=]: slices are not fed
  say proven "$1"
  D_AHEAD="$D_AHEAD$1${2-} "
  while :; do
    case $D_AHEAD in
    *" $D_NEXT "*) D_T=$D_NEXT && echo "$D_NEXT" ;;
    *" $D_NEXT= "*) D_T=$D_NEXT= ;;
    *) break ;;
    esac
    D_AHEAD="${D_AHEAD%%" $D_T "*} ${D_AHEAD#*" $D_T "}"
    D_NEXT=$((D_NEXT + 1))
  done
}

prove_kept() {
  if [ "$(sha_of "$1" 2>/dev/null)" = "$D_SHA" ]; then
    proven "$D_N"
  else
    rm -rf "$1"
    say missing "$D_N"
  fi
}

is_slice() { # FILE: is what it holds from D_AS MiB on slice D_N, and nothing behind the last?
  D_Y=$(dd if="$1" bs=1048576 skip="$D_AS" count="$D_COUNT" 2>/dev/null | if able openssl; then openssl dgst -sha256 -r; else sha; fi)
  [ "${D_Y%% *}" = "$D_SHA" ] && { [ "$D_N" != "$D_LAST" ] || [ -n "$(find "$1" -size "${D_SIZE}c" 2>/dev/null)" ]; }
}

prove_slices() { # of a file of an earlier run; it is cut where one is not what it was
  D_T=../$D_ARTIFACT/$D_FILE
  if [ -f "$D_T" ] && is_slice "$D_T"; then
    [ "$D_N" != "$D_LAST" ] || : >"proof-$D_FILE"
    proven "$D_N" =
    return
  fi
  [ ! -e "$D_T" ] || cut_at "$D_T" "$D_FIRST" $((D_N - D_FIRST)) "$D_AS"
  say missing "$D_N"
}

prove_growing() { # D_FILE.K, of whose slices K were proven
  set -- "../$D_ARTIFACT/$D_FILE".*
  if [ ! -f "$1" ]; then
    [ -f "../$D_ARTIFACT/$D_FIRST-$D_LAST" ] || fail 33 "slices $D_FIRST to $D_LAST of the artifact went away"
    return
  fi
  [ "${1##*.}" = $((D_N - D_FIRST)) ] || return 0 # proven before, or behind one that is not yet
  if ! is_slice "$1"; then
    [ -n "$D_SURE" ] || return 0
    blame . 33 "slice $D_N of the artifact arrived damaged: its digest is not $(printf %s "$D_SHA" | cut -c1-12)"
  fi
  D_T=../$D_ARTIFACT/$D_FILE.$((D_N - D_FIRST + 1))
  [ "$D_N" != "$D_LAST" ] || D_T=../$D_ARTIFACT/$D_FIRST-$D_LAST
  [ ! -d "$D_T" ] || remove "$D_T"
  D_ERR=$(mv -f "$1" "$D_T" 2>&1) || blame . 32 "cannot keep slice $D_N: $D_ERR"
  [ "$D_N" != "$D_LAST" ] || : >"proof-$D_FIRST-$D_LAST" # a later change of the file is newer
  proven "$D_N" =
}

keep_part() { # D_FILE as D_AS, or number D_N
  if [ "$(sha_of "$D_FILE")" != "$D_SHA" ]; then
    D_DOOMED=$D_FILE
    blame . 33 "part $D_N of the artifact arrived damaged: $(size_of "$D_FILE") bytes, digest $(sha_of "$D_FILE" | cut -c1-12), not $D_SIZE bytes, $(printf %s "$D_SHA" | cut -c1-12)"
  fi
  D_T=../$D_ARTIFACT/${D_AS:-$D_N}
  [ ! -d "$D_T" ] || remove "$D_T"
  D_ERR=$(mv -f "$D_FILE" "$D_T" 2>&1) || blame . 32 "cannot keep part $D_N: $D_ERR"
  [ -z "$D_AS" ] || : >"proof-$D_AS"
}

feed_parts() {
  while read -r D_N; do
    cat "$D_N" || {
      say stopped "$D_N"
      exit 1
    }
    say fed "$D_N"
  done
}

# One part where the server has no room for the command above beside an upload.
do_prove() {
  enter_parts
  keep_part
}
