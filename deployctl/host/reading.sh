# Remote commands that look and change nothing: what is live and since when, and whether it is what was released.
# Sent behind remote.sh and compare.sh, whose functions they use.

do_standing() { # the history, who holds the lock, and how large each release is
  cd "$D_ROOT/.deployctl" 2>/dev/null || return 0
  say current "$(readlink ../current 2>/dev/null)"
  if [ -r history.jsonl ]; then
    tail -n "$D_LINES" history.jsonl | sed "s/^/$D_NONCE history /"
    printf '\n' # a torn last line has no end
  fi
  if [ -r lock.owner ] && holder_lives; then
    say held "$(head -c 2000 lock.owner 2>/dev/null | tr '\n' ' ')"
  fi
  for D_T in manifests/*; do
    if [ -f "$D_T" ] && [ -d "../releases/${D_T##*/}" ]; then
      say size "${D_T##*/} $(awk '$1 == "f" { n += $3 } END { printf "%.0f", n }' "$D_T")"
    fi
  done
}

holder_lives() { # asked with a shared lock, and only where an owner is named: a look must not stand in anybody's way
  if has flock; then
    [ -e lock ] && ! flock -n -s 9 9<lock
  else
    [ -d lock.d ]
  fi
}

# ---- verify: a release against its manifest -------------------------------------------------------------------------

do_verify() {
  cd "$D_ROOT/releases/$D_ID" 2>/dev/null || fail 33 "releases/$D_ID is not there"
  D_MANIFEST=$D_ROOT/.deployctl/manifests/$D_ID
  [ -r "$D_MANIFEST" ] || fail 33 "the manifest of $D_ID is not there"
  say digest "$(sha_of "$D_MANIFEST")"
  compare
}

# The same for a release that is about to be made live again by a run that holds the lock.
do_whole() {
  do_prepare
  # What came to be shared after this release was staged is linked into it now, as staging would.
  (cd "$D_ROOT/releases/$D_ID" 2>/dev/null && share) || [ ! -d "$D_ROOT/releases/$D_ID" ] || fail 32 "cannot link shared files into $D_ID"
  note_more_links "$D_ROOT/.deployctl/manifests/$D_ID"
  do_verify
}

do_vouch() { # it was looked at and found well, or is wanted all the same: then it never counts as unchanged
  rm -f "$D_ROOT/.deployctl/manifests/$D_ID.altered"
  [ -z "$D_ALTERED" ] || : >"$D_ROOT/.deployctl/manifests/$D_ID.altered"
  touch "$D_ROOT/.deployctl/manifests/$D_ID"
}

compare() { # links are said with their text, for whoever can hash it without a process for each
  differences | sort | awk -v most="$D_MOST" -v nonce="$D_NONCE" '
    { n[$1]++ }
    $1 == "link" || n[$1] <= most { print nonce " " $0 }
    END { for (kind in n) print nonce " count " kind " " n[kind] }'
}
