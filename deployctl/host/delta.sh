# A release built from one that is here and a delta: what the delta takes from it, and the proof that this is what its
# manifest says. Sent behind remote.sh and verify.sh.
#
# stats/ID lists mode, inode, size, mtime and ctime of every file of a release as they were before its content
# was proven: what still has them is what the manifest says. Everything else is hashed.

# ---- the record --------------------------------------------------------------------------------------------------

list_files() { # DIR: the lines of a record; a newline in a name as <01>
  (cd "$1" && find . -type f -printf '%m %i %s %T@ %C@ %p\0') | tr '\000\n' '\n\001'
}

list_others() { # DIR: the same of what is no file, links with their text, without ctimes
  (cd "$1" && find . ! -type f -printf '%y %m %i %T@ %p//%l\0') | tr '\000\n' '\n\001'
}

list_all() { # DIR: the same of everything behind its type, zeros where it is no file, <02> and the text behind a link
  (
    cd "$1" && find . -mindepth 1 \( -type f -printf 'f %m %i %s %T@ %C@ %p\0' -o -type l -printf 'l %m 0 0 0 0 %p\002%l\0' \
      -o -printf '%y %m 0 0 0 0 %p\0' \)
  ) | tr '\000\n' '\n\001'
}

note_files() { # of the tree in the directory of the run, before its content is looked at: all in `listing`, its record in `stat`
  rm -f listing stat
  ! able print || { list_all tree >listing && sed -n 's/^f //p' listing >stat; } || blame . 31 "cannot write a list"
}

keep_record() { # ID: what was noted belongs to a release that was proven since
  [ ! -f stat ] || mv -f stat "../../stats/$1"
}

D_ESCAPED=$D_ESCAPE'
function path_of(line) { sub(/^[^ ]* [^ ]* [^ ]* [^ ]* /, "", line); return line }
function listed(line) { sub(/^[^ ]* [^ ]* [^ ]* [^ ]* [^ ]* \.\//, "", line); return line }
'

# Another name for an inode moves its ctime, and so does one less. What was as recorded before, and differs in nothing else
# after that, is recorded anew, and a release that was newer in nothing than its manifest stays so.
hold_record() { # ID
  D_HELD=$D_ROOT/.deployctl/incoming/$D_RUN/held
  D_CLEAN=
  rm -f "$D_HELD"
  [ -f "$D_ROOT/.deployctl/stats/$1" ] && able print || return 0
  list_files "$D_ROOT/releases/$1" >"$D_HELD" || { rm -f "$D_HELD"; return 0; }
  list_others "$D_ROOT/releases/$1" >"$D_HELD.others"
  [ -e "$D_ROOT/.deployctl/manifests/$1.altered" ] || (cd "$D_ROOT/releases" && changed_since "$1") || D_CLEAN=1
}

renew_record() { # ID
  [ -f "$D_HELD" ] || return 0
  D_STAT=$D_ROOT/.deployctl/stats/$1
  [ -z "$D_CLEAN" ] || { : >"$D_HELD.at" && settle "$D_HELD.at"; } || D_CLEAN=
  list_files "$D_ROOT/releases/$1" >"$D_HELD.now" || return 0
  cut -d' ' -f1-4,6- "$D_HELD" >"$D_HELD.same"
  cut -d' ' -f1-4,6- "$D_HELD.now" | cmp -s - "$D_HELD.same" || D_CLEAN=
  list_others "$D_ROOT/releases/$1" | cmp -s - "$D_HELD.others" || D_CLEAN=
  if [ -z "$D_CLEAN" ] || ! cmp -s "$D_HELD" "$D_STAT"; then
    awk 'function same(line) { sub(/ [^ ]* \.\//, " ./", line); return line }
      kind == "r" { recorded[$0]; next }
      kind == "h" { if ($0 in recorded) held[same($0)]; next }
      same($0) in held' kind=r "$D_STAT" kind=h "$D_HELD" kind=n "$D_HELD.now" >"$D_HELD.new" &&
      mv -f "$D_HELD.new" "$D_HELD.now" || { rm -f "$D_STAT" "$D_HELD" "$D_HELD".*; return 0; }
  fi
  mv -f "$D_HELD.now" "$D_STAT"
  [ -z "$D_CLEAN" ] || touch -r "$D_HELD.at" "$D_ROOT/.deployctl/manifests/$1"
  rm -f "$D_HELD" "$D_HELD".*
}

# ---- scan: part of the probe of a push; which release here a delta can build upon, and what of it is not as promised --

scan() { # in D_ROOT
  has xargs || return 0 # nothing can be built without
  D_BASE=$(readlink current 2>/dev/null)
  D_BASE=${D_BASE#releases/}
  if ! is_base "$D_BASE"; then
    D_BASE=
    for D_T in .deployctl/manifests/*; do
      is_base "${D_T##*/}" && D_BASE=${D_T##*/}
    done
  fi
  [ -n "$D_BASE" ] || return 0
  say base "$D_BASE"
  cd releases || return 0
  D_TEXT=../.deployctl/manifests/$D_BASE
  D_STAT=../.deployctl/stats/$D_BASE
  if [ -f "$D_STAT" ] && able print && list_files "$D_BASE" | cmp -s - "$D_STAT"; then
    say scan recorded
    D_ID=$D_BASE
    [ -e "$D_TEXT.altered" ] || [ -n "$(not_linked)" ] || changed_since "$D_BASE" || say untouched "$D_BASE"
  elif is_crowded; then
    say scan many
  elif [ ! -f "$D_STAT" ] || ! able print; then
    # Whoever builds upon it hashes it all; what hooks changed, and modes, are known without.
    say scan unrecorded
    { other_modes; [ ! -f "$D_TEXT.settled" ] || settled_names; } | sort -u | tell_unusable
  else
    say scan recorded
    (cd "$D_BASE" && D_TEXT=../$D_TEXT D_STAT=../$D_STAT && unusable) | tell_unusable
  fi
}

is_base() {
  case $1 in
  [0-9]*T[0-9]*Z-????????) [ -d "releases/$1" ] && [ ! -L "releases/$1" ] && [ -f ".deployctl/manifests/$1" ] ;;
  *) false ;;
  esac
}

is_crowded() { # so much lies in directories of the release beside what is its own that copying these would not pay
  D_T=$(cd "$D_BASE" && sed -n 's|^d [0-7]* 0 - \([^/\\]*\)$|./\1|p' "../$D_TEXT" | tr '\n' '\000' |
    xargs -0 sh -c '[ $# = 0 ] || du -sk "$@"' sh 2>/dev/null | awk '{ n += $1 } END { print n + 0 }')
  awk -v kib="$D_T" '/^[fd]/ { n += $3; kib -= 4 } END { kib -= n / 1024; exit !(kib > 65536 && kib > n / 4096) }' "$D_TEXT"
}

tell_unusable() {
  awk -v nonce="$D_NONCE" '++n <= 500 { print nonce " unusable " $0 } END { if (n > 500) print nonce " scan many" }'
}

settled_names() {
  awk "$D_ESCAPED"'{ split($0, word, " ") }
    kind == "m" { if (/^f/) { sum[path_of($0)] = word[4]; mode[path_of($0)] = word[2] }; next }
    /^#/ { whole = 1; next }
    whole {
      path = path_of($0)
      if (path in sum && (word[1] != "f" || word[2] != mode[path] || word[4] != sum[path])) print path
      next
    }
    { at = index($0, " "); path = escaped(substr($0, at + 4)) }
    path in sum && substr($0, 1, at - 1) != sum[path] { print path }' kind=m "$D_TEXT" kind=s "$D_TEXT.settled"
}

other_modes() { # files of the manifest that are gone or have another mode, where find can't tell modes
  sed -n 's/^f 0*\([0-7]\{1,4\}\) .*/\1/p' "$D_TEXT" | sort -u | while read -r D_M; do
    (cd "$D_BASE" && find . -type f -perm "$D_M" -print0) | tr '\000\n' '\n\001' | sed "s/^/$D_M /"
  done | awk "$D_ESCAPED"'
    kind == "m" {
      if (/^f/) { split($0, word, " "); sub(/^0*/, "", word[2]); want[path_of($0)] = word[2] + 0 }
      next
    }
    { raw = $0; sub(/^[^ ]* \.\//, "", raw); path = escaped(raw) }
    path in want && want[path] == $1 + 0 { delete want[path] }
    END { for (path in want) print path }' kind=m "$D_TEXT" kind=l -
}

unusable() { # in the release: files of the manifest that are gone, that have another mode, whose content is another
  D_ODD=$(list_files . | awk "$D_ESCAPED"'
    kind == "r" { recorded[$0]; next }
    kind == "m" {
      if (/^f/) { split($0, word, " "); sub(/^0*/, "", word[2]); mode[path_of($0)] = word[2]; sum[path_of($0)] = word[4] }
      next
    }
    {
      raw = listed($0)
      path = escaped(raw)
      if (!(path in mode)) next
      there[path]
      if ($0 in recorded) next
      split($0, word, " ")
      if (word[1] + 0 != mode[path] + 0 || raw != path) print "u " path
      else print "h " sum[path] " " path
    }
    END { for (path in mode) if (!(path in there)) print "u " path }' kind=r "$D_STAT" kind=m "$D_TEXT" kind=l -)
  printf '%s\n' "$D_ODD" | sed -n 's/^u //p'
  {
    printf '%s\n' "$D_ODD" | sed -n 's/^h /want /p'
    printf '%s\n' "$D_ODD" | sed -n 's/^h [^ ]* /.\//p' | tr '\n' '\000' | xargs -0 sh -c "[ \$# = 0 ] || $(sums) \"\$@\"" sh 2>/dev/null
  } | awk '/^want / { want[substr($0, 71)] = substr($0, 6, 64); next }
    { path = substr($0, 69) }
    path in want && want[path] == substr($0, 1, 64) { delete want[path] }
    END { for (path in want) print path }'
}

sums() { # the words of a command that prints "SHA256 *path" or "SHA256  path"
  if able openssl; then
    echo openssl dgst -sha256 -r
  elif has sha256sum; then
    echo sha256sum
  else
    echo shasum -a 256
  fi
}

# ---- build -------------------------------------------------------------------------------------------------------
# The delta is an archive of two halves:
#     first/edit        the new manifest as lines of the base's ("= FROM TO") and lines of its own ("+LINE")
#     first/unusable    what of the base must not be taken
#     first/took/N      hard links to files of the copy of the base that get another name
#     first/sent/N      new content that several files have
#     first/copy/K/N    hard links to what becomes a file of its own with the mode and time of group K in first/groups
#     tree/…            every directory and link, new content, and hard links to what stands in first/
# Hard links in an archive name files without a process for each, and whatever bytes their names have.

build() {
  D_OLD=$D_ROOT/releases/$D_BASE
  D_TEXT=$D_ROOT/.deployctl/manifests/$D_BASE
  [ -d "$D_OLD" ] && [ "$(sha_of "$D_TEXT")" = "$D_BASE_TREE" ] ||
    fail 33 "release $D_BASE, upon which the delta builds, is not what it was"
  D_TRUST=
  D_STAT=$D_ROOT/.deployctl/stats/$D_BASE
  [ -f "$D_STAT" ] && able print && D_TRUST=1
  remove tree && remove first && copy_base
  find tree -type d ! -perm -700 -exec chmod u+rwx {} + 2>/dev/null
  untar "../$D_ARTIFACT" first
  awk 'NR == FNR { line[NR] = $0; next }
    /^=/ { for (i = $2; i <= $3; i++) print line[i]; next }
    { print substr($0, 2) }' "$D_TEXT" first/edit >manifest || blame . 31 "cannot write the manifest"
  sort_out
  tr '\n\001' '\000\n' <away | (cd tree && xargs -0 sh -c '[ $# = 0 ] || rm -rf "$@"' sh)
  while IFS= read -r D_L; do # read would take spaces from the end of a name
    chmod "${D_L%% *}" "tree/${D_L#* }"
  done <modes
  own_files
  untar "../$D_ARTIFACT" tree
  remove first
  lock_directories
  [ -z "$D_HARD" ] || settle manifest # what was written to before shows in `stat`, what is from here on in its ctime
}

copy_base() { # what the manifest names in its root: a directory of somebody else there may be large
  (
    cd "$D_OLD" && find . ! -name . -prune -print0 | tr '\000\n' '\n\001' | awk "$D_ESCAPED"'
      kind == "m" { path = path_of($0); if (path !~ /\//) top[path]; next }
      escaped(substr($0, 3)) in top' kind=m "$D_TEXT" kind=l - | tr '\n\001' '\000\n'
  ) >tops
  [ -z "$D_HARD" ] || hold_record "$D_BASE"
  D_CP=-RPpl
  if [ -z "$D_HARD" ] || ! take_tops; then
    D_HARD=
    remove tree
    D_CP=-RPp
    cp --reflink=auto tops trial 2>/dev/null && D_CP='-RPp --reflink=auto'
    take_tops || D_TRUST= # something of somebody else could not be read, say: then everything is hashed
  fi
  # Looked at behind the copy, or before what moves every ctime: nothing was written into the base up to here.
  D_SEEN=none
  [ -n "$D_TRUST" ] || return 0
  if [ -n "$D_HARD" ]; then mv -f "$D_HELD" seen && cp seen "$D_HELD"; else list_files "$D_OLD" >seen; fi || { D_TRUST= && return 0; }
  D_SEEN=some
  ! cmp -s seen "$D_STAT" || D_SEEN=all
}

take_tops() {
  mkdir tree
  (cd "$D_OLD" && xargs -0 sh -c 'D_TO=$1; shift; [ $# = 0 ] || cp '"$D_CP"' "$@" "$D_TO"' sh "$D_ROOT/.deployctl/incoming/$D_RUN/tree/") <tops 2>/dev/null
}

# Files `away`, what is not in the new tree; `modes`, directories that somebody gave another; `check`, entries to be hashed.
sort_out() {
  : >away
  : >modes
  : >check
  D_RECORD=$D_STAT
  [ $D_SEEN = some ] || { D_RECORD=/dev/null && : >seen; }
  tree_listing | awk -v all=$D_SEEN "$D_ESCAPED"'
    kind == "u" { lost[$0]; next }
    kind == "r" { recorded[$0]; next }
    kind == "s" { # <01> in a name may be itself or a newline
      if ($0 in recorded && !index($0, "\001")) trusted[escaped(listed($0))]
      next
    }
    kind == "b" { base[$0]; next }
    kind == "n" {
      type = substr($0, 1, 1)
      path = path_of($0)
      same = $0 in base && !(path in lost)
      if (type == "d" || (type == "f" && same)) keeps[path] = type
      if (type == "d") { mode[path] = substr($0, 4, 3) }
      if (type == "f" && (!same || !(all == "all" || path in trusted))) print >"check"
      next
    }
    {
      type = substr($0, 1, 1)
      raw = $0
      sub(/^[^ ]* [^ ]* \.\//, "", raw)
      path = escaped(raw)
      if (keeps[path] != type) print "./" raw >"away"
      else if (type == "d" && raw == path && mode[path] ~ /^7/ && $2 != "-" && $2 != mode[path]) print mode[path] " " raw >"modes"
    }' kind=u first/unusable kind=r "$D_RECORD" kind=s seen kind=b "$D_TEXT" kind=n manifest kind=l - ||
    blame . 31 "cannot sort out what to take"
}

tree_listing() { # "TYPE MODE ./path" of everything; the mode is - where find can't tell it
  (
    cd tree || exit
    if able print; then
      find . -mindepth 1 -printf '%y %m %p\0' | tr '\000\n' '\n\001'
    else
      for D_T in f d l; do
        find . ! -name . -type $D_T -print0 | tr '\000\n' '\n\001' | sed "s/^/$D_T - /"
      done
      find . ! -type f ! -type d ! -type l -print0 | tr '\000\n' '\n\001' | sed 's/^/o - /'
    fi
  )
}

own_files() { # never a second name for an inode within a release; -L since busybox keeps hard links with -P
  [ -d first/copy ] || return 0
  D_ERR=$(cp -RLp first/copy first/own 2>&1) || blame . 33 "cannot copy files: $D_ERR"
  while read -r D_KIND D_MODE D_WHEN; do
    find "first/own/$D_KIND" -type f -exec chmod "$D_MODE" {} +
    [ "$D_WHEN" = - ] || find "first/own/$D_KIND" -type f -exec touch -r "first/when/$D_KIND" {} +
  done <first/groups
}

verify_built() { # names, modes and link texts of everything, sizes of all files, content of what the record does not vouch for
  if [ -z "$D_TRUST" ] || [ ! -f stat ]; then
    verify_tree tree manifest listing
    return
  fi
  if [ "$(cut -d' ' -f3,6- stat | sort | sha | cut -c1-64)" != "$D_SIZES" ]; then
    D_WRONG="names or sizes in the tree are not those of the manifest"
    return 1
  fi
  if [ -n "$D_HARD" ] && ! awk "$D_ESCAPED"'
    function kept(line) { sub(/ [^ ]* \.\//, " ./", line); return line }
    kind == "c" { path = path_of($0); gsub(/\\x01/, "\\x0a", path); check[path]; next }
    kind == "h" { held[kept($0)]; next }
    !(kept($0) in held) && !(escaped(listed($0)) in check) { wrong = 1 }
    END { exit wrong }' kind=c check kind=h "$D_HELD" kind=n stat; then
    D_WRONG="files of $D_BASE were written to while they were linked"
    return 1
  fi
  D_LINKS=
  D_GOT=$(shape tree listing | sha | cut -c1-64)
  if [ "$D_GOT" != "$D_SHAPE" ] && [ "$D_GOT" != "$D_SHAPE_SHARED" ]; then
    D_WRONG="names, modes or links in the tree are not those of the manifest: $(misshapen tree manifest)"
    return 1
  fi
  verify_content tree check
}
