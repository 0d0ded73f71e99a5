# Remote commands of `run` and `copy`. Sent behind remote.sh and lock.sh, whose functions they use.

# ---- run: as a hook is run, but in the login user's home ----------------------------------------------------------

do_run() {
  cd "${HOME:-/}" 2>/dev/null || cd /
  environment
  say group "$(process_group)"
  say begin run
  sh -c "$D_COMMAND"
  D_STATUS=$?
  printf '\n%s end run\n' "$D_NONCE" >&2 # both streams have come this far
  printf '\n'
  say status "$D_STATUS"
}

# ---- copy: whole and checked beside its destination, then renamed -------------------------------------------------
# Before anything is put there, the directory of the destination is noted in incoming/RUN/copy: whoever removes the
# directory of a dead run (drop_run) removes with it what that run left there. D_NUMBER is another for each host, since
# hosts may share a file system.

copy_paths() {
  D_BESIDE=${D_TO%/*}
  D_NEW=$D_BESIDE/.deployctl-$D_RUN-$D_NUMBER.new
  D_OLD=$D_BESIDE/.deployctl-$D_RUN-$D_NUMBER.old
  D_BESIDE=${D_BESIDE:-/}
  D_NOTES=$D_ROOT/.deployctl/incoming/$D_RUN
}

do_copy_begin() {
  prove_lock
  (do_prepare) || exit 1
  resolve_destination
  copy_paths
  [ -d "$D_BESIDE" ] || fail 32 "$D_BESIDE is not there: make the directory first"
  [ ! -d "$D_TO" ] || fail 32 "$D_TO is a directory"
  [ -L "$D_TO" ] || [ ! -e "$D_TO" ] || [ -f "$D_TO" ] || fail 32 "$D_TO is no file that could be replaced"
  refuse_ours
  say to "$D_TO"
  if is_same "$D_TO"; then
    say same yes
    return
  fi
  D_KIB=$(free_kib "$D_BESIDE")
  [ -z "$D_KIB" ] || [ "$D_KIB" -gt $((D_SIZE / 1024)) ] ||
    fail 31 "no space left on $D_BESIDE (needs $((D_SIZE / 1024 + 1)) KiB, has $D_KIB)"
  printf '%s\n' "$D_BESIDE" "$D_NUMBER" >"$D_NOTES/copy" || blame "$D_NOTES" 32 "cannot write $D_NOTES/copy"
  umask 077
  (set -C && : >"$D_NEW") 2>/dev/null || blame "$D_BESIDE" 32 "cannot write there"
  say new "$D_NEW"
}

resolve_destination() { # as scp and cp do it
  D_TO=$D_DEST
  case $D_TO in /*) ;; *) D_TO=${HOME:-/}/$D_TO ;; esac
  case $D_TO in */) [ -d "$D_TO" ] || fail 32 "$D_TO is not a directory there" ;; esac
  [ -d "$D_TO" ] || return 0
  [ -n "$D_NAME" ] || fail 32 "$D_TO is a directory, and standard input has no name to go by"
  case $D_DEST in */) ;; *) say into "$D_TO" ;; esac # whether it is one everywhere is for the parent to see
  D_TO=${D_TO%/}/$D_NAME
}

refuse_ours() { # whatever way leads there
  D_OWN=$(cd -P "$D_ROOT/.deployctl" && pwd -P)
  case $(cd -P "$D_BESIDE" && pwd -P)/ in "$D_OWN"/*) fail 32 "$D_ROOT/.deployctl is deployctl's own" ;; esac
}

is_same() {
  [ -f "$1" ] && [ ! -L "$1" ] && [ "$(size_of "$1")" = "$D_SIZE" ] &&
    [ -n "$(find "$1" -prune -perm "$D_MODE")" ] && [ "$(sha_of "$1")" = "$D_SHA" ]
}

do_copy_blame() {
  copy_paths
  blame "$D_BESIDE" 20 "$D_WHY"
}

do_copy_verify() {
  copy_paths
  [ "$(size_of "$D_NEW")" = "$D_SIZE" ] && [ "$(sha_of "$D_NEW")" = "$D_SHA" ] ||
    blame "$D_BESIDE" 33 "the file arrived damaged, or it changed here while it was sent"
  synced "$D_NOTES/try" "$D_NEW" || blame "$D_BESIDE" 32 "the disk did not take the file for good: $D_ERR"
  D_ERR=$(chmod "$D_MODE" "$D_NEW" 2>&1) || fail 32 "cannot set the mode: $D_ERR"
}

do_copy_switch() {
  prove_lock
  copy_paths
  [ -f "$D_NEW" ] || fail 20 "$D_NEW is gone"
  [ ! -d "$D_TO" ] || fail 32 "$D_TO is a directory now"
  if [ -e "$D_TO" ] || [ -L "$D_TO" ]; then
    keep_old
  else
    : >"$D_NOTES/absent" || blame "$D_NOTES" 32 "cannot write $D_NOTES/absent"
  fi
  D_ERR=$(mv -f "$D_NEW" "$D_TO" 2>&1) || blame "$D_BESIDE" 32 "cannot rename: $D_ERR"
  [ ! -e "$D_NEW" ] && [ -f "$D_TO" ] || fail 33 "$D_TO is not the new file after the rename"
  synced "$D_NEW" "$D_BESIDE" || blame "$D_BESIDE" 32 "the disk did not take the rename for good: $D_ERR"
}

keep_old() { # a hard link where one can be made, else a copy; of a link itself, not of what it leads to
  { [ ! -L "$D_TO" ] && ln "$D_TO" "$D_OLD" 2>/dev/null; } || D_ERR=$(cp -RPp "$D_TO" "$D_OLD" 2>&1) || {
    rm -f "$D_OLD"
    blame "$D_BESIDE" 32 "cannot keep the old file: $D_ERR"
  }
}

do_copy_back() {
  copy_paths
  if rm "$D_NEW" 2>/dev/null; then
    rm -f "$D_OLD" # it was not renamed, and by a command that was given up and comes late it can't be any more
  elif is_same "$D_OLD" || [ "$D_OLD" -ef "$D_TO" ]; then
    rm -f "$D_OLD" # on a file system that hosts share: another one puts the old file back, or has done so
  elif [ -e "$D_OLD" ] || [ -L "$D_OLD" ]; then
    [ ! -d "$D_TO" ] && D_ERR=$(mv -f "$D_OLD" "$D_TO" 2>&1) ||
      blame "$D_BESIDE" 32 "cannot put the old file back, it is at $D_OLD: ${D_ERR:-$D_TO is a directory now}"
  elif [ -e "$D_NOTES/absent" ] && [ "$(sha_of "$D_TO" 2>/dev/null)" = "$D_SHA" ]; then
    D_ERR=$(rm -f "$D_TO" 2>&1) || blame "$D_BESIDE" 32 "cannot remove $D_TO again: $D_ERR"
  fi
  synced "$D_NEW" "$D_BESIDE" || say unsynced "$(one_line "$D_ERR")"
  say back yes
}
