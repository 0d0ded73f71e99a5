# A release against what it was when it was staged: its manifest, and what staging linked and its hooks did (.settled).
# Sent behind remote.sh with the commands that look at a release later, and with the one that writes .settled.

verify_promised() { # DIR MANIFEST: all is there as it was staged; a cache that a program wrote in addition is no harm
  lists
  D_MANIFEST=$D_ROOT/.deployctl/manifests/${2##*/}
  D_FOUND=$(cd "$1" && differences | sed '/^extra /d')
  case $D_FOUND in
  "settled "*) D_WRONG=$(printf '%s\n%s\n' "$D_FOUND" "$(wrong_links)" | told) ;;
  *) D_WRONG="it cannot be read" ;;
  esac
  [ -z "${D_TEMPORARY-}" ] || rm -rf "$D_TEMPORARY"
  [ -z "$D_WRONG" ]
}

told() { # a few of them, for a message
  awk -F '\t' '/^(changed|missing) / && ++n <= 3 {
      name = $1
      sub(/^[^ ]* /, "", name)
      printf "%s%s (%s)", (n > 1 ? ", " : ""), name, (/^missing/ ? "missing" : $2)
    }
    END { if (n > 3) printf " and %d more", n - 3 }'
}

wrong_links() { # of those whose text is known by its digest alone: each text in a file, all hashed at once
  case $D_FOUND in *"
link "*) ;; *) return ;; esac
  D_TEXTS=$D_LISTS/texts
  mkdir "$D_TEXTS" 2>/dev/null && printf '%s\n' "$D_FOUND" | D_TEXTS=$D_TEXTS awk '
    function put(s, newline, file, i) {
      file = dir "/" ++n
      byte["0a"] = newline
      while (i = index(s, "\\x")) {
        printf "%s", (substr(s, 1, i - 1) byte[substr(s, i + 2, 2)]) >file
        s = substr(s, i + 4)
      }
      printf "%s", s >file
      close(file)
      print $2 "  " n >(dir "/sums")
      print path >(dir "/names")
    }
    BEGIN { dir = ENVIRON["D_TEXTS"]; for (i = 1; i < 256; i++) byte[sprintf("%02x", i)] = sprintf("%c", i) }
    $1 == "link" && $2 != "-" {
      at = index($0, "\t")
      path = substr($0, 71, at - 71)
      put(substr($0, at + 1), "\n")
      if (substr($0, at + 1) ~ /\\x0a/) put(substr($0, at + 1), "\001")
    }' || { printf 'changed .\tno room for a list'; return; }
  [ ! -s "$D_TEXTS/sums" ] || (cd "$D_TEXTS" && sha -c sums 2>/dev/null | awk '
    NR == FNR { name[NR] = $0; bad[$0]; next }
    /: OK$/ { sub(/:.*/, ""); delete bad[name[$0]] }
    END { for (path in bad) print "changed " path "\tlink text" }' names -)
  rm -rf "$D_TEXTS"
}

# In a release: lines `changed PATH<tab>what`, `missing …`, `extra …` with names escaped as in manifests, and
# `link SUM PATH<tab>text` for each link whose text is known by its digest alone, or with SUM - for one that nobody knows;
# first `settled whole`, or `settled partly` when links and modes were not recorded.
differences() {
  {
    printf '%s\n' "${D_EXPECTED-}" | sed 's/^/e /'
    standard
    listing | sed 's/^/l /'
    digests | sed 's/^/h /'
  } | awk "$D_ESCAPE$D_STANDARD$D_COMPARE"
}

standard() { # what is compared with
  sed 's/^/m /' "$D_MANIFEST"
  [ ! -f "$D_MANIFEST.settled" ] || sed 's/^/s /' "$D_MANIFEST.settled"
}

# What staged hooks changed, added or removed counts as part of the release from here on.
do_settle() {
  cd "$D_ROOT/releases/$D_ID" || fail 32 "cannot enter $D_ROOT/releases/$D_ID"
  D_MANIFEST=$D_ROOT/.deployctl/manifests/$D_ID
  D_LIST=$D_ROOT/.deployctl/incoming/$D_RUN/settled
  set -- -cnewer "$D_MANIFEST"
  find . -prune -cnewer . >/dev/null 2>&1 || set -- # busybox counts whole seconds: everything is read
  [ -n "$(find . "$@" 2>/dev/null | head -n 1)" ] || return 0
  {
    standard
    listing | sed 's/^/l /'
    digests "$@" | sed 's/^/h /'
  } | awk -v head="$D_SETTLED_HEAD" "$D_ESCAPE$D_STANDARD$D_SETTLE" >"$D_LIST" && mv -f "$D_LIST" "$D_MANIFEST.settled" ||
    blame "$D_ROOT/.deployctl" 31 "cannot record what the hooks changed"
  touch "$D_MANIFEST"
}

# type, mode, sum and text by path as they should be; `*` where it may be anything. The listing as type, mode and text.
D_STANDARD='
function four(mode) { # digits as text: some awks take 0644 for an octal number
  while (length(mode) < 4) mode = "0" mode
  return mode
}
function fields(line) { # type, mode, size and digest into word, the rest into path
  split(line, word, " ")
  path = line
  sub(/^[^ ]* [^ ]* [^ ]* [^ ]* /, "", path)
}
function above(path) { # directories that only lead to something need not be in the manifest
  while (sub("/[^/]*$", "", path)) if (!(path in type)) expected[path]
}
function promise(path, t, m, s) { type[path] = t; mode[path] = m; sum[path] = s }
function text_into_shared(path, up) {
  for (up = "../../shared/" path; sub("/", "\001", path);) up = "../" up
  return up
}
{ tag = substr($0, 1, 1); line = substr($0, 3) }
tag == "e" { expected[line] }
tag == "m" {
  fields(line)
  if (path ~ /\\x01/) { # in the listing that byte stands for a newline
    whole_path = path
    gsub(/\\x01/, "\\x0a", path)
    known_as[path] = whole_path
  }
  promise(path, word[1], word[2], word[4])
}
tag == "s" && line ~ /^#/ { whole = 1; next }
tag == "s" && whole {
  fields(line)
  if (word[1] == "s") {
    shared[escaped(path)] = path
    path = escaped(path)
    promise(path, "l", "*", "=")
    text[path] = text_into_shared(path)
  } else if (word[1] == "-") {
    delete type[path]
    delete shared[path]
  } else {
    if (word[1] == "l") {
      at = index(path, "\t")
      said = substr(path, at + 1)
      path = substr(path, 1, at - 1)
      text[path] = said
    }
    promise(path, word[1], word[2], word[4])
    delete shared[path]
  }
  if (word[1] != "-") above(path)
}
tag == "s" && !whole { # lines of sha256sum, or `-  ./NAME` for what was removed: modes and links were not recorded
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
    promise(path, "f", "*", substr(line, 1, 64))
    above(path)
    while (sub("/[^/]*$", "", path)) if (path in type) mode[path] = "*"
  }
}
tag == "l" {
  at = index(line, "//")
  split(line, word, " ")
  path = substr(line, 1, at - 1)
  sub(/^[^ ]* [^ ]* \.\//, "", path)
  path = escaped(path)
  there[path] = word[1] ~ /^[fdl]$/ ? word[1] : "o"
  has_mode[path] = word[1] == "l" ? "0777" : four(word[2])
  if (word[1] == "l") has_text[path] = escaped(substr(line, at + 2))
}
tag == "h" { got[escaped(substr(line, 69))] = substr(line, 1, 64) }
'

D_COMPARE='
function named(path) { return path in known_as ? known_as[path] : path }
function differs(path, what) { print "changed " named(path) "\t" what }
function name_of(type) { return type in kinds ? kinds[type] : "special file" }
function wanted(path) { return path in shared ? "link into shared" : name_of(type[path]) }
function judge(path, t, wrong) {
  t = there[path]
  if (!(path in type)) {
    if (t == "l") print "link - " path "\t" has_text[path]
    else if (!(t == "d" && path in expected)) print "extra " path "\t" name_of(t)
  } else if (t != type[path]) {
    differs(path, path in shared ? "is not the link into shared" : "is a " name_of(t) ", not a " name_of(type[path]))
  } else if (t == "l") {
    if (sum[path] != "=") print "link " sum[path] " " named(path) "\t" has_text[path]
    else if (has_text[path] != text[path]) differs(path, "link text")
  } else {
    if (mode[path] != "*" && mode[path] != has_mode[path]) wrong = "mode is not " mode[path] " but " has_mode[path]
    if (t == "f" && !(path in got)) {
      if (sum[path] != "-") wrong = wrong (wrong ? ", " : "") "cannot be read"
    } else if (t == "f" && got[path] != sum[path]) wrong = wrong (wrong ? ", " : "") "content"
    if (wrong) differs(path, wrong)
  }
}
BEGIN { kinds["f"] = "file"; kinds["d"] = "directory"; kinds["l"] = "link" }
END {
  print "settled " (whole ? "whole" : "partly")
  for (path in there) judge(path)
  for (path in type) if (!(path in there) && !(path in removed)) print "missing " named(path) "\t" wanted(path)
}'

D_SETTLE='
END {
  print head
  for (path in there) {
    t = there[path]
    if (t == "l") {
      if (path in shared && has_text[path] == text[path]) print "s - - - " shared[path]
      else print "l 0777 0 = " path "\t" has_text[path]
      continue
    }
    now = t == "f" ? (path in got ? got[path] : path in type && type[path] == t ? sum[path] : "-") : "-"
    if (!(path in type) || t " " has_mode[path] " " now != type[path] " " mode[path] " " sum[path])
      print t " " has_mode[path] " 0 " now " " path
  }
  for (path in type) if (!(path in there)) print "- - - - " path
}'

listing() { # "TYPE MODE ./path//text" for everything in the directory, a newline in a name as <01>
  if able print; then
    find . -mindepth 1 -printf '%y %m %p//%l\0' | tr '\000\n' '\n\001'
    return
  fi
  for D_T in f d; do
    for D_M in $(modes_of "$D_T"); do
      listed "$D_T $D_M" -type "$D_T" -perm "$D_M"
    done
  done
  listed "o 0" ! -type f ! -type d ! -type l
  find . -type l -exec sh -c "$D_LINK_LINES" // {} +
}

listed() { # "TYPE MODE" and what find is asked for
  D_TAG=$1
  shift
  find . ! -name . "$@" -print0 | tr '\000\n' '\n\001' | sed "s/^/$D_TAG /; s|\$|//|"
}

modes_of() { # which modes there are, as octal digits; a line that is part of a name does no harm
  find . ! -name . -type "$1" -exec ls -ldn {} + | cut -c2-10 | sort -u | awk '
    /^[r-][w-][xsS-][r-][w-][xsS-][r-][w-][xtT-]$/ {
      n = 0
      bit = 512 # some awks have no powers
      for (i = 1; i <= 9; i++) {
        bit /= 2
        c = substr($0, i, 1)
        if (c !~ /[-ST]/) n += bit
        if (c ~ /[sStT]/) n += i == 3 ? 2048 : i == 6 ? 1024 : 512
      }
      printf "%o\n", n
    }'
}

digests() { # "SHA256  ./path" of every file that find's arguments are true of
  D_SHA=sha256sum
  has sha256sum || D_SHA="shasum -a 256"
  ! able openssl || D_SHA="openssl dgst -sha256 -r"
  D_NL=$(printf '\nx')
  D_NL=${D_NL%x}
  D_CR=$(printf '\r')
  # shellcheck disable=SC2086
  find . "$@" -type f ! \( -path "*$D_NL*" -o -path "*$D_CR*" -o -path '*\\*' \) -exec $D_SHA {} + 2>/dev/null
  # Names that tools write in ways of their own, one by one.
  find . "$@" -type f \( -path "*$D_NL*" -o -path "*$D_CR*" -o -path '*\\*' \) -exec sh -c '
    for D_P; do
      D_SUM=$($0 <"$D_P") && printf "%s  " "${D_SUM%%[ *]*}" && printf %s "$D_P" | tr "\n" "\001" && echo
    done' "$D_SHA" {} + 2>/dev/null
}
