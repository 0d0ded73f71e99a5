# Remote commands of a run's moments: the lock, hooks, checks. Sent behind remote.sh, whose functions they use.

# ---- lock: held by this very command, so that it dies with the run's connection --------------------------------
# lock.owner is one line: TOKEN, the holder's process group, then who it is, as JSON. With flock the kernel knows whether the holder lives; without,
# lock.d/beat counts while it does, and a contender takes over only after a whole lease without a change on its own clock.

do_lock() {
  do_prepare
  cd "$D_ROOT/.deployctl" || fail 32 "cannot enter $D_ROOT/.deployctl"
  if has flock; then
    exec 8>>lock || blame "$PWD" 32 "cannot open the lock"
    if ! flock -n 8; then
      say held "$(head -c 2000 lock.owner 2>/dev/null | tr '\n' ' ')"
      fail 50 "another run holds the lock"
    fi
    own lock.owner
    locked
    while :; do sleep 3600; done
  fi
  lease_lock
}

locked() {
  say current "$(readlink ../current 2>/dev/null)"
  say history "$(tail -n 1 history.jsonl 2>/dev/null)"
  say locked "$D_RUN"
}

own() {
  D_ERR=$( (printf '%s %s %s\n' "$D_RUN" "$(process_group)" "$D_OWNER" >"$1.$D_RUN" && mv -f "$1.$D_RUN" "$1") 2>&1) ||
    blame "$PWD" 32 "cannot write the lock's owner: $D_ERR"
}

lease_lock() {
  if ! mkdir lock.d 2>/dev/null; then
    [ -d lock.d ] || blame "$PWD" 32 "cannot make lock.d"
    if ! lease_is_over; then
      say held "$(head -c 2000 lock.owner 2>/dev/null | tr '\n' ' ')"
      fail 50 "another run holds the lock"
    fi
    # Of several contenders the rename lets one through.
    mv lock.d "incoming/$D_RUN/dead" 2>/dev/null && remove "incoming/$D_RUN/dead"
    mkdir lock.d 2>/dev/null || fail 50 "another run has just taken the lock"
  fi
  own lock.owner
  D_BEAT=0
  echo "$D_RUN 0" >lock.d/beat
  locked
  while :; do
    sleep "$D_BEAT_S"
    owned || exit 1
    D_BEAT=$((D_BEAT + 1))
    echo "$D_RUN $D_BEAT" >lock.d/beat || exit 1
  done
}

lease_is_over() {
  D_SEEN=$(cat lock.d/beat 2>/dev/null)
  D_WAITED=0
  while [ "$D_WAITED" -lt "$D_LEASE_S" ]; do
    sleep 1
    D_WAITED=$((D_WAITED + 1))
    [ "$(cat lock.d/beat 2>/dev/null)" = "$D_SEEN" ] || return 1
  done
}

# Is the lock ours and its holder alive? Asked in the command that switches.
prove_lock() {
  [ -n "$D_LOCK" ] || return 0
  (
    cd "$D_ROOT/.deployctl" && owned || fail 50 "the lock of this run was taken by another: $(head -c 500 lock.owner 2>/dev/null)"
    if has flock && flock -n 9 9>>lock; then
      fail 50 "the lock of this run was lost"
    fi
  ) || exit 1
}

owned() {
  [ -r lock.owner ] && read -r D_TOKEN D_REST <lock.owner || return 1
  [ "$D_TOKEN" = "$D_RUN" ]
}

do_unlock() {
  cd "$D_ROOT/.deployctl" 2>/dev/null || return 0
  owned || return 0
  free_lock
}

free_lock() {
  rm -f lock.owner
  [ ! -d lock.d ] || { rm -f lock.d/beat && rmdir lock.d; }
}

do_owner() { # who holds the lock, if anybody does
  cd "$D_ROOT/.deployctl" 2>/dev/null || return 0
  lock_is_held && say held "$(head -c 2000 lock.owner 2>/dev/null | tr '\n' ' ')"
  return 0
}

lock_is_held() {
  if has flock; then
    [ -e lock ] && ! flock -n 9 9<lock
  else
    [ -d lock.d ]
  fi
}

do_break_lock() { # take it away: the holder's command is killed, its run finds out before it switches
  cd "$D_ROOT/.deployctl" 2>/dev/null || return 0
  lock_is_held || return 0
  read -r D_TOKEN D_GROUP D_REST <lock.owner 2>/dev/null || D_GROUP=
  [ -n "$D_GROUP" ] && kill -s KILL "-$D_GROUP" 2>/dev/null
  free_lock
  record "$D_RECORD"
  D_WAITED=0
  while lock_is_held; do
    [ "$D_WAITED" -ge 5 ] && fail 50 "the lock is still held by a process that cannot be ended"
    sleep 1
    D_WAITED=$((D_WAITED + 1))
  done
}

# ---- hooks: output as it comes, between our lines; killed with its children when the channel closes ---------------

do_hook() {
  cd "$D_ROOT/$D_DIR" || fail 40 "cannot enter $D_ROOT/$D_DIR"
  environment
  say group "$(process_group)"
  say begin hook
  sh -c "$D_COMMAND"
  D_STATUS=$?
  printf '\n'
  say status "$D_STATUS"
}

process_group() {
  if [ -r "/proc/$$/stat" ]; then
    read -r _ _ _ _ D_GROUP _ <"/proc/$$/stat" && printf '%s' "$D_GROUP"
  else
    ps -o pgid= -p $$ 2>/dev/null | tr -d ' '
  fi
}

# Is anything of that process group still there? Waits a moment for the kernel to be done with it.
do_gone() {
  D_WAITED=0
  while kill -0 "-$D_GROUP" 2>/dev/null; do
    [ "$D_WAITED" -ge 20 ] && fail 40 "processes of the hook are still running"
    kill -s KILL "-$D_GROUP" 2>/dev/null
    sleep 0.1 2>/dev/null || sleep 1
    D_WAITED=$((D_WAITED + 1))
  done
}

# What staged hooks changed or added counts as part of the release from here on.
do_settle() {
  cd "$D_ROOT/releases" || fail 32 "cannot enter $D_ROOT/releases"
  D_STAMP="../.deployctl/manifests/$D_ID"
  D_SINCE=-newer
  find . -prune -cnewer . >/dev/null 2>&1 && D_SINCE=-cnewer
  rm -f "$D_STAMP.settled"
  if [ -n "$(find "$D_ID" -type f "$D_SINCE" "$D_STAMP" 2>/dev/null | head -n 1)" ]; then
    (cd "$D_ID" && find . -type f "$D_SINCE" "../$D_STAMP" -exec "$(has sha256sum && echo sha256sum || echo shasum)" {} +) >"$D_STAMP.settled" ||
      blame "$D_ROOT/.deployctl" 31 "cannot record what the hooks changed"
  fi
  touch "$D_STAMP"
}

# ---- checks from the host ------------------------------------------------------------------------------------------

do_check_url() {
  D_BODY=$D_ROOT/.deployctl/incoming/$D_RUN/body
  if has curl; then
    D_GOT=$(curl -sS -L -o "$D_BODY" -w '%{http_code}' --max-time "$D_LIMIT" "$D_URL" 2>"$D_BODY.error")
  elif has wget; then
    wget -q -T "$D_LIMIT" -S -O "$D_BODY" "$D_URL" 2>"$D_BODY.error"
    D_GOT=$(sed -n 's/^ *HTTP\/[0-9.]* \([0-9][0-9][0-9]\).*/\1/p' "$D_BODY.error" | tail -n 1)
  else
    fail 30 "curl and wget are missing on the host: a check with from: host needs one of them"
  fi
  say http "${D_GOT:-000}"
  say error "$(one_line "$(tail -n 1 "$D_BODY.error" 2>/dev/null)")"
  if [ -n "$D_TEXT" ] && [ -f "$D_BODY" ]; then
    grep -qF -e "$D_TEXT" "$D_BODY" && say text found
  fi
  rm -f "$D_BODY" "$D_BODY.error"
}
