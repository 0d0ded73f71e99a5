# The lock of a run. Sent behind remote.sh, whose functions it uses.

# ---- lock: held by this very command, so that it dies with the run's connection --------------------------------
# lock.owner is one line: TOKEN, the holder's process group, then who it is, as JSON. With flock the kernel knows whether the holder lives; without,
# lock.d/beat counts while it does, and a contender takes over only after a whole lease without a change on its own clock.

do_lock() {
  umask 022
  [ -d "$D_ROOT/.deployctl" ] || D_ERR=$(mkdir -p "$D_ROOT/.deployctl" 2>&1) || blame "$D_ROOT" 32 "cannot create directories in $D_ROOT: $D_ERR"
  cd "$D_ROOT/.deployctl" || fail 32 "cannot enter $D_ROOT/.deployctl"
  if has flock; then
    (: >>lock) 2>/dev/null || blame "$PWD" 32 "cannot open the lock"
    exec 8>>lock
    D_TRIES=5 # a look at the lock holds it for a moment, and a holder needs one to write its name
    while ! flock -n 8; do
      D_TRIES=$((D_TRIES - 1))
      [ $D_TRIES -gt 0 ] || refuse_lock
      own_again # where only our end knows that the connection is lost
      moment
    done
    own
    locked
    while :; do sleep 3600; done
  fi
  lease_lock
}

moment() { sleep 0.1 2>/dev/null || sleep 1; }

refuse_lock() {
  say held "$(head -c 2000 lock.owner 2>/dev/null | tr '\n' ' ' | grep . || echo unknown)"
  fail 50 "another run holds the lock"
}

locked() {
  do_prepare
  if [ -e history.jsonl ] && ! (: >>history.jsonl) 2>/dev/null; then # no switch could be written down
    fail 32 "$PWD/history.jsonl is not writable for $(id -un 2>/dev/null): give it to that user, or move it away"
  fi
  [ ! -L ../current ] || say current "$(readlink ../current)"
  [ ! -e history.jsonl ] || say history "$(tail -n 1 history.jsonl)"
  say locked "$D_RUN"
}

own() {
  D_ERR=$( (printf '%s %s %s\n' "$D_RUN" "$(process_group)" "$D_OWNER" >"lock.owner.$D_RUN" && mv -f "lock.owner.$D_RUN" lock.owner) 2>&1) ||
    blame "$PWD" 32 "cannot write the lock's owner: $D_ERR"
}

lease_lock() {
  if ! mkdir lock.d 2>/dev/null; then
    [ -d lock.d ] || blame "$PWD" 32 "cannot make lock.d"
    { own_again || lease_is_over; } && take_over || refuse_lock
  fi
  own
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

own_again() { # our own lock, whose holder went with a lost connection or is about to
  [ -n "${D_AGAIN-}" ] && owned || return 1
  end_group "$D_GROUP"
  D_SEEN=$(cat lock.d/beat 2>/dev/null)
}

take_over() { # of several contenders the rename lets one through; what it took must be what was seen dead
  mkdir lock.d 2>/dev/null && return # its holder gave it back
  mkdir -p "incoming/$D_RUN"
  mv lock.d "incoming/$D_RUN/dead" 2>/dev/null || return 1
  if [ "$(cat "incoming/$D_RUN/dead/beat" 2>/dev/null)" != "$D_SEEN" ]; then
    mv "incoming/$D_RUN/dead" lock.d 2>/dev/null
    remove "incoming/$D_RUN"
    return 1
  fi
  remove "incoming/$D_RUN/dead"
  mkdir lock.d 2>/dev/null
}

lease_is_over() {
  D_SEEN=$(cat lock.d/beat 2>/dev/null)
  D_WAITED=0
  # The probe of this host has looked at it already: hosts that are locked one after the other need one lease in all.
  [ -z "$D_SEEN" ] || [ "$D_SEEN" != "${D_BEAT_SEEN-}" ] || D_WAITED=$D_BEAT_AGE
  while [ "$D_WAITED" -lt "$D_LEASE_S" ]; do
    sleep 1
    D_WAITED=$((D_WAITED + 1))
    [ -d lock.d ] || return 0
    [ "$(cat lock.d/beat 2>/dev/null)" = "$D_SEEN" ] || return 1
  done
}

# Is the lock ours and its holder alive? Asked in the command that switches.
prove_lock() {
  [ -n "$D_LOCK" ] || return 0
  (
    prove_owned
    if has flock; then
      ! flock -n 9 9>>lock
    else
      [ -z "$D_GROUP" ] || group_lives "$D_GROUP"
    fi || fail 50 "the lock of this run was lost: the process that held it has ended"
  ) || exit 1
}

prove_owned() {
  cd "$D_ROOT/.deployctl" 2>/dev/null && owned && return
  say taken_by "$(head -c 2000 lock.owner 2>/dev/null | tr '\n' ' ' | grep . || echo nobody)"
  fail 50 "the lock of this run was taken away"
}

# Asked when a command of ours has failed and the process that held our lock is gone: is that why?
do_prove_owned() { prove_owned; }

# The name goes while the lock is still ours, since the next holder writes its own as soon as it is free. With flock the
# lock goes with its process, whose end need not be waited for: looking at all processes takes long where there are many.
# Without D_HELD that process went with a lost connection, most likely: where nobody has the lock, it is taken for this.
do_unlock() {
  cd "$D_ROOT/.deployctl" 2>/dev/null || return 0
  keep_proven "incoming/$D_RUN"
  owned || { remove "incoming/$D_RUN"; return 0; }
  has flock || { remove "incoming/$D_RUN"; let_go; return; }
  if [ -z "$D_HELD" ] && [ -e lock ]; then
    (flock -n 9 && { ! owned || rm -f lock.owner; }) 9<lock && remove "incoming/$D_RUN" && return
  fi
  rm -rf lock.owner "incoming/$D_RUN" 2>/dev/null || remove "incoming/$D_RUN"
  [ -z "$D_GROUP" ] || kill -KILL "-$D_GROUP" 2>/dev/null # dash knows no group after -s KILL
  return 0
}

# A lease is only free once its name and directory are gone, and a holder that lives would write into them.
let_go() {
  if has flock; then
    rm -f lock.owner
    end_group "$D_GROUP"
  else
    end_group "$D_GROUP"
    free_lock
  fi
}

end_group() {
  D_WAITED=0
  while [ -n "$1" ] && [ "$D_WAITED" -lt 20 ] && kill -KILL "-$1" 2>/dev/null; do # dash knows no group after -s KILL
    # Mostly they are gone by now. Who is dead and waited for by nobody shows in a look at all processes, which costs more.
    [ "$D_WAITED" -lt 2 ] || group_lives "$1" || return 0
    { [ "$D_WAITED" -lt 2 ] && sleep 0.01 2>/dev/null; } || moment
    D_WAITED=$((D_WAITED + 1))
  done
}

# Is any process of the group there that is not just a dead one nobody has waited for?
group_lives() {
  kill -0 "-$1" 2>/dev/null || return 1
  [ -r "/proc/$$/stat" ] || return 0
  # One process for all of them: the shell reads a file byte by byte.
  cat /proc/[0-9]*/stat 2>/dev/null | awk -v group="$1" '
    { sub(/.*\) /, ""); if ($3 == group && $1 !~ /^[ZX]/) found = 1 } END { exit !found }'
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
  read -r D_TOKEN D_GROUP D_REST <lock.owner 2>/dev/null || { D_TOKEN= && D_GROUP=; }
  [ "$D_TOKEN" = "${D_HOLDER-$D_TOKEN}" ] || fail 50 "another run has taken the lock meanwhile"
  record "$D_RECORD"
  let_go
  ! lock_is_held || fail 50 "the lock is still held by a process that cannot be ended"
}

process_group() {
  if [ -r "/proc/$$/stat" ]; then
    read -r _ _ _ _ D_GROUP _ <"/proc/$$/stat" && printf '%s' "$D_GROUP"
  else
    ps -o pgid= -p $$ 2>/dev/null | tr -d ' '
  fi
}
