# Remote commands that keep a deploy root tidy and look whether it is fit. Sent behind remote.sh and lock.sh.

# ---- prune -----------------------------------------------------------------------------------------------------
# A release leaves releases/ by one rename into the directory of the run; only then does its manifest go, then its files.
# Whenever that ends early, what is in releases/ is whole, and the rest is removed by the next run.

do_survey() {
  cd "$D_ROOT" 2>/dev/null || return 0
  unlinked
  say current "$(readlink current 2>/dev/null)"
  for D_T in releases/*; do
    ours "${D_T##*/}" && say release "${D_T##*/}"
  done
  [ -r .deployctl/history.jsonl ] || return 0
  head -n 1 .deployctl/history.jsonl | sed "s/^/$D_NONCE first /"
  grep -e '"event": "confirm"' -e '"event": "stage"' .deployctl/history.jsonl | tail -n 4000 | sed "s/^/$D_NONCE history /"
}

# Never through a link: what is behind it need not be ours.
unlinked() {
  for D_T in releases .deployctl .deployctl/incoming .deployctl/manifests; do
    [ ! -L "$D_T" ] || fail 32 "$D_ROOT/$D_T is a link: nothing behind it is removed"
  done
}

ours() { [ -d "releases/$1" ] && [ ! -L "releases/$1" ] && [ -f ".deployctl/manifests/$1" ]; }

do_prune() {
  prove_lock
  cd "$D_ROOT" || fail 32 "cannot enter $D_ROOT"
  unlinked
  D_COUNT=0
  for D_T in .deployctl/incoming/*; do
    is_run "$D_T" && [ "$D_T" != ".deployctl/incoming/$D_RUN" ] && D_COUNT=$((D_COUNT + 1))
  done
  say leftovers "$D_COUNT"
  (do_prepare) || exit 1
  D_AWAY=.deployctl/incoming/$D_RUN
  D_LIVE=$(cd -P current 2>/dev/null && pwd -P)
  D_HERE=$(pwd -P)
  D_STUCK=
  hold_live
  for D_T in $D_IDS; do
    prune_release "$D_T"
  done
  [ -z "$D_SHARES" ] || renew_record "$D_SHARES"
  prune_manifests
  prune_artifacts
  rm -f .deployctl/version.?* .deployctl/lock.owner.?*
  for D_T in .deployctl/incoming/*; do
    ! is_run "$D_T" || drop_run "$D_T" || D_STUCK="${D_STUCK:-cannot remove $D_ROOT/$D_T}"
  done
  [ -z "$D_STUCK" ] || fail 32 "$D_STUCK"
}

hold_live() { # the release whose inodes lose names, where releases share them
  D_SHARES=
  [ -n "$D_IDS" ] || return 0
  case $D_LIVE in "$D_HERE"/releases/*) D_T=${D_LIVE#"$D_HERE"/releases/} ;; *) return 0 ;; esac
  D_T=${D_T%%/*}
  ours "$D_T" && [ -n "$(find "releases/$D_T" -type f -links +1 2>/dev/null | head -n 1)" ] || return 0
  D_SHARES=$D_T
  hold_record "$D_SHARES"
}

prune_release() {
  ours "$1" || return 0
  case $D_LIVE/ in "$D_HERE/releases/$1"/*) return 0 ;; esac
  [ -w "releases/$1" ] || chmod u+rwx "releases/$1" 2>/dev/null # a directory that moves is written to: its .. changes
  if ! D_ERR=$(mv "releases/$1" "$D_AWAY/$1" 2>&1); then
    D_STUCK="${D_STUCK:-cannot move releases/$1 away: $(one_line "$D_ERR")}"
    return
  fi
  rm -f ".deployctl/manifests/$1" ".deployctl/manifests/$1.settled" ".deployctl/manifests/$1.altered" ".deployctl/stats/$1"
  say removed "$1"
  remove "$D_AWAY/$1" || D_STUCK="${D_STUCK:-cannot remove all of releases/$1: the rest is in $D_ROOT/$D_AWAY}"
}

prune_manifests() { # of releases that are gone
  for D_T in .deployctl/manifests/* .deployctl/stats/*; do
    D_NAME=${D_T##*/}
    D_NAME=${D_NAME%.settled}
    D_NAME=${D_NAME%.altered}
    case $D_NAME in
    [0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]T[0-9][0-9][0-9][0-9][0-9][0-9]Z-????????)
      [ -e "releases/$D_NAME" ] || [ -L "releases/$D_NAME" ] || rm -f "$D_T"
      ;;
    esac
  done
}

prune_artifacts() { # all of them, or with D_AGE those older than a day
  D_OLD=
  [ -z "$D_AGE" ] || D_OLD='-mtime +0'
  # shellcheck disable=SC2086
  say artifacts "$(find .deployctl/incoming ! -name incoming -prune \( ! -type d -o -name '*.parts' \) $D_OLD | wc -l | tr -d ' ')"
  # shellcheck disable=SC2086
  find .deployctl/incoming ! -name incoming -prune \( ! -type d -o -name '*.parts' \) $D_OLD -exec rm -rf {} +
}

# ---- check: what a release would need, looked at and tried ---------------------------------------------------------

do_nothing() { :; }

do_unexamine() { rm -f "$D_PLACE"; }

do_examine() {
  say clock "$(date +%s)"
  (do_probe)
  for D_T in flock mv ln mkdir rm chmod df sed; do
    has "$D_T" && say tool "$D_T"
  done
  tool_versions
  D_TRIED=
  try_rights "$(nearest "$D_ROOT")"
  [ ! -d "$D_ROOT/.deployctl/incoming" ] || try_rights "$D_ROOT/.deployctl/incoming"
  say tried "$D_TRIED"
  (cd "$D_ROOT" 2>/dev/null && look_at_root)
  D_SSHD=$(command -v sshd || echo /usr/sbin/sshd)
  "$D_SSHD" -T 2>/dev/null | sed -n -e "s/^maxsessions /$D_NONCE maxsessions /p" -e "s/^maxstartups /$D_NONCE maxstartups /p"
  share_dir() { [ ! -e "$D_ROOT/shared/$1" ] || [ -d "$D_ROOT/shared/$1" ] || say shared_odd "$1"; }
  share_file() { [ -e "$D_ROOT/shared/$1" ] || say shared_missing "$1"; }
  share
  (do_owner)
}

tool_versions() {
  for D_T in "ssh -V" "tar --version" "gzip --version" "zstd --version"; do
    has "${D_T%% *}" && D_LINE=$($D_T 2>&1 </dev/null | head -n 1) || continue
    case $D_LINE in
    *unrecognized* | *invalid* | *nknown*) ;;
    *[0-9].[0-9]*) say tool_version "${D_T%% *} $(one_line "$D_LINE")" ;;
    esac
  done
}

try_rights() { # to write, to rename and to remove, in a directory made for it
  D_TRY=$1/.deployctl-check-$D_RUN
  D_STEP=write
  D_ERR=$( (mkdir "$D_TRY" && echo probe >"$D_TRY/file") 2>&1) &&
    D_STEP=rename &&
    D_ERR=$( (mkdir "$D_TRY/a" && mv "$D_TRY/file" "$D_TRY/a/" && mv "$D_TRY/a" "$D_TRY/b" && ln -s b "$D_TRY/link" && mv -f "$D_TRY/link" "$D_TRY/b/") 2>&1) &&
    D_STEP=remove &&
    D_ERR=$(rm -r "$D_TRY" 2>&1) && D_STEP=
  D_TRIED="$D_TRIED${D_TRIED:+, }$1"
  [ -z "$D_STEP" ] || { say right_missing "$D_STEP $1 $(one_line "$D_ERR")"; rm -rf "$D_TRY" 2>/dev/null; }
}

look_at_root() {
  [ -L current ] && [ ! -e current ] && say dangling yes
  for D_T in . releases shared .deployctl; do
    [ -d "$D_T" ] && say filesystem "$D_T $(df -P "$D_T" 2>/dev/null | tail -n 1)"
  done
  [ "$(id -u)" != 0 ] || return 0
  for D_T in releases/*; do
    [ -d "$D_T" ] && [ ! -L "$D_T" ] && [ ! -O "$D_T" ] && say not_ours "${D_T##*/}"
  done
}
