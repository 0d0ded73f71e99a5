# Remote commands that look and change nothing: what is live and since when, and whether it is what was released.
# Sent behind remote.sh, whose functions they use.

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
  do_verify
}

do_vouch() { # it was looked at and found well, or is wanted all the same: then it never counts as unchanged
  rm -f "$D_ROOT/.deployctl/manifests/$D_ID.altered"
  [ -z "$D_ALTERED" ] || : >"$D_ROOT/.deployctl/manifests/$D_ID.altered"
  touch "$D_ROOT/.deployctl/manifests/$D_ID"
}

# Everything as tagged lines to one awk, which says what differs; names are escaped as in manifests. Texts of links are
# said as they are, for whoever can hash them without a process for each.
compare() {
  {
    printf '%s\n' "$D_EXPECTED" | sed 's/^/e /'
    sed 's/^/m /' "$D_MANIFEST"
    [ ! -f "$D_MANIFEST.settled" ] || sed 's/^/s /' "$D_MANIFEST.settled"
    listing | sed 's/^/l /'
    digests | sed 's/^/h /'
  } | awk "$D_ESCAPE$D_COMPARE" | sort | awk -v most="$D_MOST" -v nonce="$D_NONCE" '
    { n[$1]++ }
    $1 == "link" || n[$1] <= most { print nonce " " $0 }
    END { for (kind in n) print nonce " count " kind " " n[kind] }'
}

D_ESCAPE='
function escaped(s, i, c, out) {
  if (s !~ /[^ -~]|\\/) return s
  for (i = 1; i <= length(s); i++) {
    c = substr(s, i, 1)
    out = out (c ~ /[ -~]/ && c != "\\" ? c : code[c])
  }
  return out
}
BEGIN {
  for (i = 1; i < 256; i++) code[sprintf("%c", i)] = sprintf("\\x%02x", i)
  code["\001"] = "\\x0a"
}
'

D_COMPARE='
function differs(path, what) {
  if (path in wrong) what = wrong[path] ", " what
  wrong[path] = what
}
function four(mode) { # digits as text: some awks take 0644 for an octal number
  while (length(mode) < 4) mode = "0" mode
  return mode
}
function name_of(type) { return type in kinds ? kinds[type] : "special file" }
BEGIN { kinds["f"] = "file"; kinds["d"] = "directory"; kinds["l"] = "link" }
{ tag = substr($0, 1, 1); line = substr($0, 3) }
tag == "e" { expected[line] }
tag == "m" {
  split(line, word, " ")
  path = line
  sub(/^[^ ]* [^ ]* [^ ]* [^ ]* /, "", path)
  type[path] = word[1]; mode[path] = word[2]; sum[path] = word[4]
}
tag == "s" {
  names = line ~ /^\\/
  if (names) line = substr(line, 2)
  at = index(line, " ")
  path = substr(line, at + 4)
  if (names) { gsub(/\\\\/, "\002", path); gsub(/\\n/, "\001", path); gsub(/\\r/, "\015", path); gsub(/\002/, "\\\\", path) }
  path = escaped(path)
  if (at == 2) {
    removed[path]
    while (sub("/[^/]*$", "", path)) removed[path]
  } else {
    settled[path] = substr(line, 1, 64)
    while (sub("/[^/]*$", "", path)) expected[path]
  }
}
tag == "l" {
  at = index(line, "\002")
  split(line, word, " ")
  path = substr(line, 1, at - 1)
  sub(/^[^ ]* [^ ]* \.\//, "", path)
  path = escaped(path)
  there[path] = word[1]
  text = escaped(substr(line, at + 1))
  if (!(path in type)) {
    if (word[1] == "l") print "link - " path "\t" text
    else if (!(path in settled) && !(word[1] == "d" && path in expected)) print "extra " path "\t" name_of(word[1])
  } else if (word[1] != type[path]) {
    differs(path, "is a " name_of(word[1]) ", not a " name_of(type[path]))
  } else if (word[1] == "l") {
    print "link " sum[path] " " path "\t" text
  } else if (four(word[2]) != mode[path] && !(path in settled) && !(word[1] == "d" && path in expected)) {
    differs(path, "mode is not " mode[path] (word[2] == "?" ? "" : " but " four(word[2])))
  }
}
tag == "h" {
  path = escaped(substr(line, 69))
  read[path]
  if ((path in settled || type[path] == "f") && substr(line, 1, 64) != (path in settled ? settled[path] : sum[path]))
    differs(path, "content")
}
END {
  for (path in type) if (!(path in there) && !(path in removed)) print "missing " path "\t" name_of(type[path])
  for (path in settled) if (!(path in there) && !(path in type)) print "missing " path "\tfile"
  for (path in there) if (there[path] == "f" && type[path] == "f" && !(path in read)) differs(path, "cannot be read")
  for (path in wrong) print "changed " path "\t" wrong[path]
}'

listing() { # "TYPE MODE ./path<02>text" for everything in the directory, a newline in a name as <01>
  if find . -prune -printf '' >/dev/null 2>&1; then
    find . -mindepth 1 -printf '%y %m %p\002%l\0' | tr '\000\n' '\n\001'
    return
  fi
  D_STX=$(printf '\002')
  for D_T in f d; do
    set --
    for D_M in $(sed -n "s/^$D_T 0*\\([0-7][0-7]*\\) .*/\\1/p" "$D_MANIFEST" | sort -u); do
      listed "$D_T $D_M" -type "$D_T" -perm "$D_M"
      set -- "$@" ! -perm "$D_M"
    done
    listed "$D_T ?" -type "$D_T" "$@"
  done
  listed "o ?" ! -type f ! -type d ! -type l
  find . -type l -print0 | tr '\000\n' '\n\001' | while IFS= read -r D_P; do
    D_L=$(real_name "$D_P")
    D_L=$(readlink "${D_L%x}" && echo x)
    printf 'l 777 %s\002%s\n' "$D_P" "$(printf %s "${D_L%?x}" | tr '\n' '\001')"
  done
}

real_name() { printf '%sx' "$1" | tr '\001' '\n'; }

listed() { # "TYPE MODE" and what find is asked for
  D_TAG=$1
  shift
  find . ! -name . "$@" -print0 | tr '\000\n' '\n\001' | sed "s/^/$D_TAG /; s/\$/$D_STX/"
}

digests() { # "SHA256  ./path" of every file; names that tools write in ways of their own are hashed one by one
  D_NL=$(printf '\nx')
  set -- -path "*${D_NL%x}*" -o -path "*$(printf '\r')*" -o -path '*\\*'
  if has_openssl; then
    find . -type f ! \( "$@" \) -exec openssl dgst -sha256 -r {} +
  elif has sha256sum; then
    find . -type f ! \( "$@" \) -exec sha256sum {} +
  else
    find . -type f ! \( "$@" \) -exec shasum -a 256 {} +
  fi 2>/dev/null
  find . -type f \( "$@" \) -print0 | tr '\000\n' '\n\001' | while IFS= read -r D_P; do
    D_FILE=$(real_name "$D_P")
    D_SUM=$(sha_of "${D_FILE%x}" 2>/dev/null)
    [ -z "$D_SUM" ] || printf '%s  %s\n' "$D_SUM" "$D_P"
  done
}
