# An artifact that comes in parts: each is proven by its digest, kept as incoming/ARTIFACT.parts/N, and unpacked while the
# next one is on its way. Sent behind remote.sh, to a shell of its own.
#
# Lines on standard input:
#     part N SIZE SHA FILE   it was put into the directory of the run under this name
#     part N SIZE SHA        it is said to be here, from an earlier run
#     end                    that was all
# Words of the answer, while it goes on: have N, ready, proven N, missing N, fed N, stopped N.

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
  for D_T in "../$D_ARTIFACT"/*; do
    [ -f "$D_T" ] && say have "${D_T##*/}"
  done
  ! able openssl || :
  say able "$D_ABLE"
  say ready yes
  if [ "$D_FROM" = delta ]; then
    prove_parts >/dev/null
  else
    parts_of() { prove_parts 2>/dev/null | feed_parts 2>/dev/null; } # a warning of a tool is nothing for tar
    unpack "../$D_ARTIFACT"
  fi
}

enter_parts() {
  cd "$D_ROOT/.deployctl/incoming/$D_RUN" 2>/dev/null || fail 20 "$D_ROOT/.deployctl/incoming/$D_RUN is gone"
  D_ERR=$(mkdir -p "../$D_ARTIFACT" 2>&1) || blame . 32 "cannot make a directory for parts: $D_ERR"
}

prove_parts() { # prints the numbers of those that can be fed, in their order
  D_NEXT=1
  D_AHEAD=' '
  while read -r D_WORD D_N D_SIZE D_SHA D_FILE; do
    [ "$D_WORD" = part ] || break
    if [ -n "$D_FILE" ]; then
      keep_part
    elif [ "$(sha_of "../$D_ARTIFACT/$D_N" 2>/dev/null)" != "$D_SHA" ]; then
      rm -rf "../$D_ARTIFACT/$D_N"
      say missing "$D_N"
      continue
    fi
    say proven "$D_N"
    D_AHEAD="$D_AHEAD$D_N "
    while :; do
      case $D_AHEAD in *" $D_NEXT "*) ;; *) break ;; esac
      D_AHEAD="${D_AHEAD%%" $D_NEXT "*} ${D_AHEAD#*" $D_NEXT "}"
      echo "$D_NEXT"
      D_NEXT=$((D_NEXT + 1))
    done
  done
}

keep_part() { # D_FILE as number D_N
  if [ "$(sha_of "$D_FILE")" != "$D_SHA" ]; then
    D_DOOMED=$D_FILE
    blame . 33 "part $D_N of the artifact arrived damaged: $(size_of "$D_FILE") bytes, digest $(sha_of "$D_FILE" | cut -c1-12), not $D_SIZE bytes, $(printf %s "$D_SHA" | cut -c1-12)"
  fi
  [ ! -d "../$D_ARTIFACT/$D_N" ] || remove "../$D_ARTIFACT/$D_N"
  D_ERR=$(mv -f "$D_FILE" "../$D_ARTIFACT/$D_N" 2>&1) || blame . 32 "cannot keep part $D_N: $D_ERR"
}

feed_parts() {
  while read -r D_N; do
    cat "../$D_ARTIFACT/$D_N" || {
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
