# What is live: the switch by one rename, read back, the way back, and what is written down of both. Part of remote.sh.

do_activate() {
  cd "$D_ROOT/releases" 2>/dev/null || { prove_lock && fail 32 "cannot enter $D_ROOT/releases"; }
  is_as_staged || { prove_lock && fail 33 "$D_WRONG"; } # whoever took the lock may have removed what was looked at
  cd -P .. || fail 32 "cannot enter $D_ROOT"
  prove_lock
  record "$D_RECORD"
  switch_to "releases/$D_ID"
  synced ".deployctl/incoming/$D_RUN/try" . || blame "$D_ROOT" 32 "the disk did not take the switch for good: $D_ERR"
}

is_as_staged() { # in releases
  D_WRONG="releases/$D_ID is not there"
  [ -d "$D_ID" ] && [ -f "../.deployctl/manifests/$D_ID" ] || return
  D_WRONG="the manifest of $D_ID was changed after it was staged"
  has_sum "../.deployctl/manifests/$D_ID" "$D_TREE" || return
  changed_since "$D_ID" || return 0
  verify_promised "$D_ID" "../.deployctl/manifests/$D_ID" && return
  D_WRONG="changed after it was staged: $D_WRONG"
  return 1
}

switch_to() { # TARGET [DIRECTORY]
  if [ ! -L current ] && [ -e current ]; then
    fail 32 "$D_ROOT/current is not a link: move it away, deployctl makes it a link to the release"
  fi
  D_DIR=.deployctl/incoming/$D_RUN/${2-switch}
  [ ! -L "$D_DIR/current" ] || rm -f "$D_DIR/current"
  [ -d "$D_DIR" ] || D_ERR=$(mkdir -p "$D_DIR" 2>&1) || blame "$D_ROOT" 32 "cannot switch current: $D_ERR"
  D_ERR=$( (ln -s -- "$1" "$D_DIR/current" && mv -f "$D_DIR/current" ./) 2>&1) ||
    blame "$D_ROOT" 32 "cannot switch current: $D_ERR"
  D_T=$(readlink current)
  [ "$D_T" = "$1" ] || fail 33 "current reads $D_T after the switch, not $1"
  say live "$1"
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
  D_NOW=$(readlink "$D_ROOT/current" 2>/dev/null)
  say live "$D_NOW"
  # Another run may have been here, and what it made live is its own to confirm.
  [ -z "${D_ID-}" ] || [ "$D_NOW" = "releases/$D_ID" ] || return 0
  cd "$D_ROOT/.deployctl/incoming" || fail 32 "cannot enter $D_ROOT/.deployctl/incoming"
  if (cd .. && owned); then
    set --
    for D_T in * .[!.]*; do
      [ ! -e "$D_T" ] || set -- "$@" "$D_T"
    done
    [ $# = 0 ] || rm -rf -- "$@" 2>/dev/null || for D_T; do remove "$D_T"; done
  else
    remove "$D_RUN"
  fi
  record "$D_RECORD"
}

# After an abort: the unproven goes, proven artifacts and staged trees stay.
do_clean() {
  (cd "$D_ROOT/.deployctl" 2>/dev/null && drop_run "incoming/$D_RUN")
  say live "$(readlink "$D_ROOT/current" 2>/dev/null)"
}

do_manifest() {
  cd "$D_ROOT/.deployctl/manifests" || return 0
  [ -f "$D_ID" ] && sed "s/^/$D_NONCE entry /" "$D_ID"
}
