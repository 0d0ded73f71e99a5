# A release built from one that is here and a delta: what the delta takes from it, and the proof that this is what its
# manifest says. Sent behind remote.sh and verify.sh.
#
# stats/ID lists mode, inode, size, mtime and ctime of every file of a release, sorted, as they were before its content
# was proven: what still has them is what the manifest says. Everything else is hashed.

# ---- the record --------------------------------------------------------------------------------------------------

D_ESCAPED=$D_ESCAPE'
function path_of(line) { sub(/^[^ ]* [^ ]* [^ ]* [^ ]* /, "", line); return line }
function listed(line) { sub(/^[^ ]* [^ ]* [^ ]* [^ ]* [^ ]* \.\//, "", line); return line }
'
D_SAME='
function same(  at) { at = index($0, " ./"); return substr($0, 1, at - 2 - length($5)) substr($0, at) } # the line without its ctime
'

# Another name for an inode moves its ctime, and so does one less. What was as recorded before, and differs in nothing else
# after that, is recorded anew.
hold_record() { # ID
  D_HELD=$D_ROOT/.deployctl/incoming/$D_RUN/held
  rm -f "$D_HELD"
  { [ -f "$D_ROOT/.deployctl/stats/$1" ] && able print && list_files "$D_ROOT/releases/$1" >"$D_HELD"; } || rm -f "$D_HELD"
}

renew_record() { # ID
  [ -f "$D_HELD" ] || return 0
  D_STAT=$D_ROOT/.deployctl/stats/$1
  list_files "$D_ROOT/releases/$1" >"$D_HELD.now" || return 0
  cut -d' ' -f1-4,6- "$D_HELD" >"$D_HELD.same"
  if ! cmp -s "$D_HELD" "$D_STAT" || ! cut -d' ' -f1-4,6- "$D_HELD.now" | cmp -s - "$D_HELD.same"; then
    awk "$D_SAME"'
      kind == "r" { recorded[$0]; next }
      kind == "h" { if ($0 in recorded) held[same()]; next }
      same() in held' kind=r "$D_STAT" kind=h "$D_HELD" kind=n "$D_HELD.now" >"$D_HELD.new" &&
      mv -f "$D_HELD.new" "$D_HELD.now" || { rm -f "$D_STAT" "$D_HELD" "$D_HELD".*; return 0; }
  fi
  mv -f "$D_HELD.now" "$D_STAT"
  rm -f "$D_HELD" "$D_HELD".*
}

# Without another look at all of the base, where it was as recorded: the list of the new release has the inodes that it
# shares (is_shared), and only what is `gone` from it is looked at.
renew_base() {
  [ $D_SEEN = all ] && (cd "$D_OLD" && xargs -0 sh -c "[ \$# = 0 ] || find \"\$@\" -prune -type f -printf '$D_LINE\\0'" sh) <"$D_GONE" |
    tr '\000\n' '\n\001' | awk "$D_SAME"'
      kind == "u" { left[$0]; n++; next }
      same() in left { print; n-- }
      END { exit n != 0 }' kind=u unshared kind=g - >>renewed && mv -f renewed "$D_STAT" || renew_record "$D_BASE"
}

# ---- scan: part of the probe of a push; which release here a delta can build upon, and what of it is not as promised --

scan() { # in D_ROOT
  has xargs || return 1 # nothing can be built without
  D_BASE=${D_LINK#releases/}
  if ! is_base "$D_BASE"; then
    D_BASE=
    for D_T in .deployctl/manifests/*; do
      is_base "${D_T##*/}" && D_BASE=${D_T##*/}
    done
  fi
  [ -n "$D_BASE" ] || return
  say base "$D_BASE"
  cd releases || return
  D_TEXT=../.deployctl/manifests/$D_BASE
  D_STAT=../.deployctl/stats/$D_BASE
  if as_recorded "$D_BASE"; then
    say scan whole
    D_ID=$D_BASE
    [ -e "$D_TEXT.altered" ] || [ -n "$(not_linked)" ] || say untouched "$D_BASE"
  elif [ -f "$D_STAT" ] && able print && list_files "$D_BASE" | same_lines "$D_STAT"; then
    say scan recorded
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
  return 0
}

is_base() {
  is_release_id "$1" && [ -d "releases/$1" ] && [ ! -L "releases/$1" ] && [ -f ".deployctl/manifests/$1" ]
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
# The delta is an archive of two halves, the second of which is `tree`:
#     first/edit        the new manifest as lines of the base's ("= FROM TO") and lines of its own ("+LINE")
#     first/unusable    what of the base must not be taken
#     first/away        names of its files that the new tree has not, or has another of, each ended by a NUL
#     first/took/N      hard links to files of the copy of the base that get another name
#     first/sent/N      new content that several files have
#     first/patches     what is written of large files that changed a little; first/new/N gets them, first/frames/N is what is new
#     first/copy/K/N    hard links to what becomes a file of its own with the mode and time of group K in first/groups
#     tree/…            every directory and link, new content, and hard links to what stands in first/
# Hard links in an archive name files without a process for each, and whatever bytes their names have.

build() {
  build_upon
  [ -d "$D_OLD" ] && [ -f "$D_TEXT" ] || fail 33 "release $D_BASE, upon which the delta builds, is not what it was"
  copy_base
  : >manifest && : >away && : >check && : >modes || blame . 31 "cannot write a list"
  if [ $D_SEEN = all ] && [ -n "$D_AT_ONCE" ]; then build_at_once; else build_in_halves; fi
  built
}

build_upon() {
  D_OLD=$D_ROOT/releases/$D_BASE
  D_TEXT=$D_ROOT/.deployctl/manifests/$D_BASE
  D_STAT=$D_ROOT/.deployctl/stats/$D_BASE
  D_TRUST=
  [ -f "$D_STAT" ] && able print && D_TRUST=1
  for D_T in tree first held; do
    [ ! -e "$D_T" ] || remove "$D_T"
  done
}

built() {
  D_BUILT=1
  lock_directories
  [ -z "$D_BARE" ] || place_bare
  [ -z "$D_HARD" ] || settle manifest # what was written to before shows in `stat`, what is from here on in its ctime
}

# The same tree under another id, as a delta in which nothing travels: where all of it is as it was recorded.
build_same() {
  build_upon
  [ -n "$D_TRUST" ] && [ -d "$D_OLD" ] && [ -f "$D_TEXT" ] || return
  D_ALL_OR_NONE=1
  copy_base
  [ $D_SEEN = all ] || return
  D_GONE=first/away
  mkdir first && : >"$D_GONE" && : >manifest && : >away && : >check && : >modes &&
    D_N=$(wc -l <"$D_TEXT") && printf '= 1 %s\n' "$((D_N))" >first/edit || blame . 31 "cannot write a list"
  D_AT_ONCE=1
  sort_out_recorded same
  take_away away
  correct_modes
  built
}

# What goes from the copy was told with the command, nothing gets a second name, and links there are none.
build_at_once() {
  remove_links
  [ -z "$D_AWAY" ] || (
    cd tree || exit
    IFS='
'
    set -f
    # shellcheck disable=SC2086
    set -- $D_AWAY
    for D_T; do case $D_T in ./*) ;; *) exit 1 ;; esac done
    rm -rf "$@"
  ) || blame . 33 "cannot remove what the new release has not"
  untar "../$D_ARTIFACT"
  D_GONE=first/away
  sort_out_recorded
  take_away away
  correct_modes
}

# Through a link that somebody put there, files elsewhere would be removed, and some tars would write there. Those of the new
# release all travel.
remove_links() { find tree ! -type f ! -type d -exec rm -f {} + || blame . 33 "cannot remove links"; }

build_in_halves() {
  remove_links
  untar "../$D_ARTIFACT" first
  D_GONE=gone
  mv -f first/away gone
  [ ! -s first/unusable ] || [ $D_SEEN = none ] || D_SEEN=some
  if [ $D_SEEN = all ]; then sort_out_recorded; else sort_out; fi
  take_away gone away
  correct_modes
  own_files
  [ ! -f first/patches ] || write_patched
  untar "../$D_ARTIFACT" tree
  remove first
}

correct_modes() { # of directories, where somebody gave them others
  while IFS= read -r D_L; do # read would take spaces from the end of a name
    chmod "${D_L%% *}" "tree/${D_L#* }"
  done <modes
}

take_away() {
  for D_T; do
    [ ! -s "$D_T" ] || (cd tree && xargs -0 sh -c '[ $# = 0 ] || rm -rf "$@"' sh) <"$D_T"
  done
}

# The base is looked at behind the copy or, where that moves every ctime, before it: nothing was written into it up to there.
# D_SEEN: none could be, some is as recorded, or all of it.
copy_base() {
  D_SEEN=none
  D_HELD=$PWD/held
  if [ -n "$D_HARD" ]; then
    look_at_base
    # What is linked gets another ctime, and its record is made anew only when something comes of it.
    [ -z "${D_ALL_OR_NONE-}" ] || [ $D_SEEN = all ] || return 0
    take_base -RPpl && open_directories && return
    D_HARD=
    D_SEEN=none
  fi
  if [ -n "$D_MANY" ] && gets_modes; then # three calls less for each file
    set -- '-RP --preserve=timestamps --reflink=auto' -RPp
  else
    set -- '-RPp --reflink=auto' -RPp
  fi
  take_base "$@" || D_TRUST= # something of somebody else could not be read, say: then everything is hashed
  look_at_base
  open_directories
}

D_NL='
'
look_at_base() {
  [ -n "$D_TRUST" ] || return 0
  D_SEEN=all
  list_base '\n' -name "*$D_NL*" -printf / -o && cmp -s held "$D_STAT" && return
  list_base '\0' && tr '\000\n' '\n\001' <held >held.lines && mv -f held.lines held &&
    tr '\000\n' '\n\001' <base >base.lines && mv -f base.lines base || { D_SEEN=none && D_TRUST= && rm -f held && return; }
  same_lines "$D_STAT" <held || D_SEEN=some
}

list_base() { # END FIRST…: `held`, the lines of a record, and `base`, "TYPE MODE ./path" of all else, but for what find is asked first
  D_END=$1
  D_INTO=$PWD/base
  shift
  : >base
  (cd "$D_OLD" && find . -mindepth 1 "$@" -type f -printf "$D_LINE$D_END" -o -fprintf "$D_INTO" "%y %m %p$D_END") >held
}

gets_modes() { # do files and directories have the modes that they are made with here, or does the root hand down others?
  [ -d trial ] || mkdir -m 700 trial
  (umask 0 && : >trial/file && mkdir trial/directory 2>/dev/null)
  [ -z "$(find trial/file trial/directory ! -perm 666 ! -perm 777 2>&1)" ]
}

list_tops() { # what the manifest names in its root: a directory of somebody else there may be large
  (
    cd "$D_OLD" && find . ! -name . -prune -print0 | tr '\000\n' '\n\001' | awk "$D_ESCAPED"'
      kind == "m" { if ($0 !~ /\//) top[path_of($0)]; next }
      escaped(substr($0, 3)) in top' kind=m "$D_TEXT" kind=l - | tr '\n\001' '\000\n'
  ) >tops
}

take_base() { # OPTIONS…: with the modes it has, by the first way that cp knows; all of it, where nothing was put there
  [ $D_SEEN = all ] || [ -n "$D_WHOLE" ] || list_tops
  umask 0
  for D_CP; do
    [ ! -e tree ] || remove tree
    if [ $D_SEEN = all ] || [ -n "$D_WHOLE" ]; then
      # shellcheck disable=SC2086
      cp $D_CP "$D_OLD/." tree 2>/dev/null
    else
      mkdir -m 755 tree # whatever the umask is
      D_INTO=$PWD/tree
      (cd "$D_OLD" && xargs -0 sh -c 'D_TO=$1; shift; [ $# = 0 ] || cp '"$D_CP"' "$@" "$D_TO"' sh "$D_INTO/") <tops 2>/dev/null
    fi
    D_STATUS=$?
    [ $D_STATUS != 0 ] || break
  done
  umask 022
  own_root
  return $D_STATUS
}

own_root() { # the release's own directory may have any mode; one that hands down its group gave that to all of them
  [ ! -g tree ] || find tree -type d -perm -2000 -exec chmod g-s {} +
  { [ -r tree ] && [ -w tree ] && [ -x tree ]; } || chmod 755 tree
}

open_directories() {
  [ $D_SEEN = none ] || grep -Eq '^d ([0-7]?[0-6][0-7][0-7]|[0-7][0-7]?) ' base || return 0
  find tree -type d ! -perm -700 -exec chmod u+rwx {} + 2>/dev/null
  return 0
}

# `manifest`, and what follows from it: files `away`, what is not in the new tree; `modes`, directories that somebody gave
# another; `check`, entries to be hashed, and how many, since some awks do not notice a full disk.
# Where all files of the base are as recorded, the delta tells it of files, and the list of the base of all else.
sort_out_recorded() { # [same]: no link travels
  awk "$D_ESCAPED"'
    function keep(text) {
      print text >"manifest"
      if (text ~ /^d/) mode[path_of(text)] = substr(text, 4, 3)
      if (same && text ~ /^l/) stays[path_of(text)]
    }
    kind == "t" { line[++n] = $0; next }
    kind == "e" && /^=/ { for (i = $2; i <= $3; i++) keep(line[i]); next }
    kind == "e" {
      keep(substr($0, 2))
      if (at_once) stays[path_of(substr($0, 2))]
      if (/^.f/) { print substr($0, 2) >"check"; checks++ }
      next
    }
    {
      raw = substr($0, index($0, "./") + 2)
      path = escaped(raw)
      if (!/^d/ || !(path in mode)) { if (!(path in stays)) print "./" raw }
      else if (raw == path && mode[path] ~ /^7/ && $2 != mode[path]) print mode[path] " " raw >"modes"
    }
    END { print "end " checks + 0 >"check" }' at_once="$D_AT_ONCE" same="${1-}" kind=t "$D_TEXT" kind=e first/edit kind=b base >away || blame . 31 "cannot sort out what to take"
  [ ! -s away ] || { tr '\n\001' '\000\n' <away >away.names && mv -f away.names away; } || blame . 31 "cannot sort out what to take"
}

sort_out() {
  awk 'NR == FNR { line[NR] = $0; next }
    /^=/ { for (i = $2; i <= $3; i++) print line[i]; next }
    { print substr($0, 2) }' "$D_TEXT" first/edit >manifest || blame . 31 "cannot write the manifest"
  D_RECORD=$D_STAT
  D_LOOK=held
  [ $D_SEEN = some ] || { D_RECORD=/dev/null && D_LOOK=/dev/null; }
  tree_listing | awk "$D_ESCAPED"'
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
      if (type == "f" && (!same || !(path in trusted))) { print >"check"; checks++ }
      next
    }
    {
      type = substr($0, 1, 1)
      raw = $0
      sub(/^[^ ]* [^ ]* \.\//, "", raw)
      path = escaped(raw)
      if (keeps[path] != type) print "./" raw
      else if (type == "d" && raw == path && mode[path] ~ /^7/ && $2 != "-" && $2 != mode[path]) print mode[path] " " raw >"modes"
    }
    END { print "end " checks + 0 >"check" }' kind=u first/unusable kind=r "$D_RECORD" kind=s "$D_LOOK" kind=b "$D_TEXT" kind=n manifest kind=l - |
    tr '\n\001' '\000\n' >away || blame . 31 "cannot sort out what to take"
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

# Lines of the delta, as artifact/delta.py tells of them. What is read is the base itself, since a copy that is written over
# is no reference any more; that it was what it should be shows in the digest of what comes of it.
write_patched() {
  : >reference
  while read -r D_WORD D_A D_B D_C D_D D_NAME; do
    D_ERR=
    case $D_WORD in
    f) begin_patched "$D_A" "$D_C" "$D_D" ;;
    c) copy_range "$D_A" "$D_B" "$D_C" "$D_D" ;;
    o) dd if="$D_FILE" bs="$D_A" skip="$D_B" count="$D_C" 2>/dev/null >>reference ;;
    z) decode "first/frames/$D_A" && exec 4<decoded ;;
    n) dd of="$D_NEW" bs="$D_A" seek="$D_B" count="$D_C" conv=notrunc <&4 2>/dev/null ;;
    e) chmod "$D_MODE" "$D_NEW" && touch -r "$D_WAS" "$D_NEW" ;;
    esac || {
      D_DOOMED=../$D_ARTIFACT
      blame . 33 "cannot patch files: zstd or dd failed${D_ERR:+: $D_ERR}"
    }
  done <first/patches
  exec 4<&-
  rm -f reference decoded
}

begin_patched() { # NUMBER FROM SIZE, with D_B and D_NAME
  D_NEW=first/new/$1
  D_WAS=first/was/$1
  D_MODE=$D_B
  D_FILE=$(printf '%bx' "$D_NAME")
  D_FILE=$D_OLD/${D_FILE%x}
  D_OVER=1
  [ -f "$D_FILE" ] && [ ! -L "$D_FILE" ] || return
  if [ "$2" = - ]; then
    D_OVER=
    : >decoded
    : >"$D_NEW"
    return
  fi
  if [ -z "$(find "$D_NEW" -links 1 2>/dev/null)" ]; then # it is also the base's, or another file's of the new tree
    cp --reflink=auto "$D_NEW" whole 2>/dev/null || cp "$D_NEW" whole || return
    mv -f whole "$D_NEW" || return
  fi
  chmod u+rw "$D_NEW" || return
  [ "$2" -le "$3" ] || dd if=/dev/null of="$D_NEW" bs=1 seek="$3" 2>/dev/null # cuts it
}

copy_range() { # FIRST SIZE UNIT SEEK
  if [ -n "$D_OVER" ]; then
    tail -c "+$1" "$D_FILE" 2>/dev/null | head -c "$2" | dd of="$D_NEW" bs="$3" seek="$4" conv=notrunc 2>/dev/null
  else
    tail -c "+$1" "$D_FILE" 2>/dev/null | head -c "$2" >>"$D_NEW"
  fi
}

decode() { # FRAME: with the reference, if there is one, which is used up
  D_FRAME=$1
  set --
  [ ! -s reference ] || set -- -D reference
  if [ -n "$D_OVER" ]; then
    D_ERR=$(zstd -dcq "$@" <"$D_FRAME" 2>&1 >decoded)
  else
    D_ERR=$(zstd -dcq "$@" <"$D_FRAME" 2>&1 >>"$D_NEW")
  fi && : >reference
}

verify_built() { # names, modes, link texts and sizes of everything, content of what the record does not vouch for
  if [ -z "$D_TRUST" ] || [ ! -f stat ]; then
    verify_tree tree manifest
    return
  fi
  if [ -z "$D_LISTED" ]; then
    D_WRONG="names, modes, sizes or links in the tree are not those of the manifest: $(misshapen tree manifest)"
    return 1
  fi
  if [ -n "$D_HARD" ] && ! is_shared; then
    D_WRONG="files of $D_BASE were written to while they were linked"
    return 1
  fi
  verify_content tree check counted
}

# Is everything that is not checked what the base had before it was linked? Files `renewed`, the record of what is shared as it
# is now, and `unshared`, what else the base had, without ctimes.
is_shared() {
  : >renewed && : >unshared && awk "$D_ESCAPED$D_SAME"'
    kind == "h" { held[same()]; next }
    kind == "c" && /^end / { next }
    kind == "c" { path = path_of($0); gsub(/\\x01/, "\\x0a", path); check["./" path]; next }
    {
      now = same()
      if (now in held) { print >"renewed"; delete held[now] }
      else if (!(escaped(path_of(now)) in check)) wrong = 1
    }
    END { for (was in held) print was >"unshared"; exit wrong }' kind=h held kind=c check kind=n stat
}
