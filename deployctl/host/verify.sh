# A tree that was just unpacked against its manifest: names, types, modes, link texts, content. Part of remote.sh.
# What became of it later is looked at in compare.sh.

verify_tree() { # DIR MANIFEST: names, types, modes and link texts at once, then content
  if [ -z "${D_LISTED-}" ]; then
    D_GOT=$(shape "$1" | sha)
    if [ "${D_GOT%% *}" != "$D_SHAPE" ] && [ "${D_GOT%% *}" != "$D_SHAPE_SHARED" ]; then
      D_WRONG="names, modes or links in the tree are not those of the manifest: $(misshapen "$1" "$2")"
      return 1
    fi
  fi
  verify_content "$1" "$2"
}

# One look at the tree in the directory of the run, before its content is looked at: its record goes to `stat`, and D_LISTED says
# whether all that is in the manifest is there, with its size, and no more, and the record was written.
note_tree() {
  D_LISTED=
  able print || return 0
  if [ -z "$D_ODD" ]; then # what has a newline in its name there is none of ours
    D_GOT=$({ list_tree '\n' || echo failed; } | sort | $D_SUMS)
  else
    D_GOT=$({ list_tree '\0' || echo failed; } | tr '\000\n' '\n\001' | sort | $D_SUMS)
    tr '\000\n' '\n\001' <stat >stat.lines && mv -f stat.lines stat || blame . 31 "cannot write a list"
  fi
  [ "${D_GOT%% *}" != "$D_SIZES" ] || D_LISTED=1
}

list_tree() { # END: "MODE SIZE ./path" of files, "TYPE MODE ./path" of all else, with the text behind a link
  (cd tree && find . -mindepth 1 -type f -printf "%m %s %p$1" -fprintf ../stat "$D_LINE$1" -o \
    -type l -printf "l %m %p\\002%l$1" -o -printf "%y %m %p$1")
}

plain_names() { sed -n 's/^\([fdl]\) 0*\([0-7]\{1,4\}\) [0-9]* [^ ]* \([^\\]*\)$/\1 \2 .\/\3/p' "$1"; }

lists() { # a directory for lists; where nothing may be left, one that is removed again
  D_LISTS=$D_ROOT/.deployctl/incoming/$D_RUN
  [ ! -d "$D_LISTS" ] || return 0
  D_LISTS=$(mktemp -d 2>/dev/null) || { D_LISTS=/tmp/deployctl-$D_RUN && mkdir "$D_LISTS"; }
  D_TEMPORARY=$D_LISTS
}

# One process for each link: only names and texts with a newline cost another.
D_LINK_LINES='
  one_line() { case $1 in *"$D_NL"*) printf %s "$1" | tr "\\n" "\\001" ;; *) printf %s "$1" ;; esac; }
  D_NL="
"
  for D_P; do
    D_L=$(readlink "$D_P" && echo x)
    D_L=${D_L%x}
    D_L=${D_L%"$D_NL"}
    printf "l 777 "
    one_line "$D_P"
    printf %s "$0" # what stands before the text
    one_line "$D_L"
    printf "\\n"
  done'

shape() {
  (
    cd "$1" || exit 1
    if able print; then
      find . -mindepth 1 \( -type l -printf 'l %m %p\002%l\0' -o -printf '%y %m %p\0' \) | tr '\000\n' '\n\001'
    else
      D_STX=$(printf '\002')
      for D_M in $D_MODES; do
        find . ! -name . -type "${D_M%%:*}" -perm "${D_M#*:}" -print0 | tr '\000\n' '\n\001' |
          sed "s/^/${D_M%%:*} ${D_M#*:} /"
      done
      set -- ! -type l # and what is of no type and mode that is wanted
      for D_M in $D_MODES; do set -- "$@" ! \( -type "${D_M%%:*}" -perm "${D_M#*:}" \); done
      find . ! -name . "$@" -print0 | tr '\000\n' '\n\001' | sed 's/^/other /'
      find . -type l -exec sh -c "$D_LINK_LINES" "$D_STX" {} +
    fi
  ) | sort
}

misshapen() { # a few differing names for the message; names with odd bytes may be missing from it
  plain_names "$2" | sort >"$D_ROOT/.deployctl/incoming/$D_RUN/expected" 2>/dev/null || return
  shape "$1" | sed "s/$(printf '\002').*//" | sort | diff "$D_ROOT/.deployctl/incoming/$D_RUN/expected" - |
    sed -n 's/^< /lacks /p; s/^> /has /p' | head -n 4 | tr '\n' ';'
  rm -f "$D_ROOT/.deployctl/incoming/$D_RUN/expected"
}

verify_content() { # DIR LIST [counted]: a manifest, or some lines of one and `end` with their number
  lists
  : >"$D_LISTS/odd" && : >"$D_LISTS/sums" && D_N=$(D_LISTS=$D_LISTS D_PROVEN=${D_BARE:+in_place} awk "$D_OCTAL"'
    BEGIN {
      sums = ENVIRON["D_LISTS"] "/sums"; odd = ENVIRON["D_LISTS"] "/odd"
      if (ENVIRON["D_PROVEN"]) while ((getline name <ENVIRON["D_PROVEN"]) > 0) proven[name]
    }
    /^end / { want = $2 }
    !/^f/ { next }
    { sum = $4; sub(/^f [0-7]* [0-9]* [0-9a-f]* /, "") }
    $0 in proven { known++; next }
    /\\/ { print sum "\n" octal($0) >odd; odds++; next }
    { print sum " *./" $0 >sums; n++ }
    END { print (!counted || (want != "" && want == n + odds + known) ? n + 0 " " odds + 0 : "lost") }' counted="${3-}" "$2") || blame "$D_LISTS" 31 "cannot write a list"
  D_T=$(wc -l <"$D_LISTS/sums") && D_Y=$(wc -l <"$D_LISTS/odd") && [ "$((D_T)) $((D_Y / 2))" = "$D_N" ] ||
    blame "$D_LISTS" 31 "cannot write a list"
  (
    cd "$1" || exit 1
    if [ -s "$D_LISTS/sums" ] && ! sums_match && ! sha -c "$D_LISTS/sums" >/dev/null 2>&1; then
      sha -c "$D_LISTS/sums" 2>/dev/null | grep -v ': OK$' | head -n 3 | tr '\n' ';'
      exit 1
    fi
    while read -r D_SUM && IFS= read -r D_NAME; do
      D_FILE=$(printf '%bx' "$D_NAME")
      has_sum "./${D_FILE%x}" "$D_SUM" || { printf '%s: FAILED' "$D_NAME"; exit 1; }
    done <"$D_LISTS/odd"
  ) >"$D_LISTS/wrong" 2>&1
  D_STATUS=$?
  [ $D_STATUS = 0 ] || D_WRONG="content differs from the manifest: $(cat "$D_LISTS/wrong")"
  [ -z "${D_TEMPORARY-}" ] || rm -rf "$D_TEMPORARY"
  return $D_STATUS
}

sums_match() { # one process for thousands of files; sha -c has the last word when it finds a difference
  is_bulk && able openssl && has xargs && has cmp &&
    cut -c67- "$D_LISTS/sums" | tr '\n' '\000' | xargs -0 openssl dgst -sha256 -r 2>/dev/null | cmp -s - "$D_LISTS/sums"
}

# For awk: a name of a manifest, "na\x0ame", for printf %b.
D_OCTAL='
function hex(c) { return index("0123456789abcdef", c) - 1 }
function octal(s, i, out) {
  while ((i = index(s, "\\x")) > 0) {
    out = out substr(s, 1, i - 1) sprintf("\\0%03o", hex(substr(s, i + 2, 1)) * 16 + hex(substr(s, i + 3, 1)))
    s = substr(s, i + 4)
  }
  return out s
}
'

# What staging linked into shared is noted beside the manifest: the inventory may name other paths by the time somebody
# compares. Staged hooks add what they did (do_settle); a `.settled` without this first line is of an older deployctl.
D_SETTLED_HEAD='# as staging and its hooks left it: lines of the manifest, links with their text, "s" into shared, "-" gone'

note_links() { # MANIFEST
  (
    share_dir() { printf 's - - - %s\n' "$1"; }
    share_file() { share_dir "$1"; }
    printf '%s\n' "$D_SETTLED_HEAD" && share
  ) >"$1.settled" || blame "$D_ROOT/.deployctl" 31 "cannot write $1.settled"
}

note_more_links() { # MANIFEST: those that were linked just now
  grep -qxF -e "$D_SETTLED_HEAD" "$1.settled" 2>/dev/null || return 0
  (
    share_dir() { grep -qxF -e "s - - - $1" "$D_NOTED" || printf 's - - - %s\n' "$1" >>"$D_NOTED"; }
    share_file() { share_dir "$1"; }
    D_NOTED=$1.settled
    share
  ) || blame "$D_ROOT/.deployctl" 31 "cannot write $1.settled"
}

# For awk: names as they stand in a manifest.
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

# ---- lists of what is there, where find can print it; a newline in a name is <01> ----------------------------------

D_LINE='%m %i %s %T@ %C@ %p'

list_files() { # DIR: the lines of a record
  (cd "$1" && find . -type f -printf "$D_LINE\\0") | tr '\000\n' '\n\001'
}

same_lines() { # FILE: are the same lines there and in the input, in whatever order?
  awk 'kind == "r" { recorded[$0]; n++; next }
    !($0 in recorded) { exit other = 1 }
    { n-- }
    END { exit other || n }' kind=r "$1" kind=l -
}

# Is every file of a release as its record lists it, and no directory newer than its manifest, so that nothing came, went or
# was replaced? A second name for an inode moves the ctime of files, which are recorded anew then, and of no directory.
as_recorded() { # ID, in releases
  [ -f "../.deployctl/stats/$1" ] && ! is_unable print || return 1
  if [ -s "../.deployctl/stats/$1" ] && list_since "$1" '\n' 2>/dev/null | cmp -s - "../.deployctl/stats/$1"; then
    is_able print || D_ABLE="$D_ABLE print" # as has just been seen
    return
  fi
  able print && list_since "$1" '\0' | tr '\000\n' '\n\001' | same_lines "../.deployctl/stats/$1" # in another order, or with odd names
}

list_since() { (cd "$1" && find . -type f -printf "$D_LINE$2" -o -type d -cnewer "$D_ROOT/.deployctl/manifests/$1" -printf "/$2"); }
