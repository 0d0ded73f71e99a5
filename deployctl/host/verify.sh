# A release on a host against its manifest: names, types, modes, link texts, content. Part of remote.sh.

verify_tree() { # DIR MANIFEST: names, types, modes and link texts at once, then content
  D_LINKS=
  D_GOT=$(shape "$1" | sha | cut -c1-64)
  if [ "$D_GOT" != "$D_SHAPE" ] && [ "$D_GOT" != "$D_SHAPE_SHARED" ]; then
    D_WRONG="names, modes or links in the tree are not those of the manifest: $(misshapen "$1" "$2")"
    return 1
  fi
  verify_content "$1" "$2"
}

verify_promised() { # DIR MANIFEST: all that the manifest names is there as it says; a cache that a program wrote is no harm
  D_WRONG=$(lacking "$1" "$2")
  if [ -n "$D_WRONG" ]; then
    D_WRONG="names or modes are not those of the manifest: lacks $D_WRONG"
    return 1
  fi
  D_LINKS=1
  verify_content "$1" "$2"
}

lacking() { # names, types and modes; names with odd bytes are left to the check of content
  lists
  [ -n "${D_MODES-}" ] || D_MODES=$(sed -n 's/^\([fd]\) 0*\([0-7]\{1,4\}\) .*/\1:\2/p' "$2" | sort -u)
  plain_names "$2" | unsettled "$2" >"$D_LISTS/expected" || printf 'room for a list'
  { shape "$1" | sed "s/$(printf '\002').*//"; echo; } |
    awk 'NR == FNR { has[$0]; next } !($0 in has)' - "$D_LISTS/expected" | head -n 4 | tr '\n' ';'
  rm -f "$D_LISTS/expected"
  [ -z "${D_TEMPORARY-}" ] || rm -rf "$D_TEMPORARY"
}

unsettled() { # lines `f 644 ./name` without those that staged hooks changed or removed
  if [ -f "$1.settled" ]; then
    awk 'NR == FNR { n = substr($0, index($0, " ") + 1); sub(/^[ *]/, "", n); s[n]; next }
      { n = $0; sub(/^[^ ]* [^ ]* /, "", n); if (!(n in s)) print }' "$1.settled" -
  else
    cat
  fi
}

plain_names() { sed -n 's/^\([fdl]\) 0*\([0-7]\{1,4\}\) [0-9]* [^ ]* \([^\\]*\)$/\1 \2 .\/\3/p' "$1"; }

lists() { # a directory for lists; where nothing may be left, one that is removed again
  D_LISTS=$D_ROOT/.deployctl/incoming/$D_RUN
  [ ! -d "$D_LISTS" ] || return 0
  D_LISTS=$(mktemp -d 2>/dev/null) || { D_LISTS=/tmp/deployctl-$D_RUN && mkdir "$D_LISTS"; }
  D_TEMPORARY=$D_LISTS
}

shape() {
  (
    cd "$1" || exit 1
    if find . -prune -printf '' >/dev/null 2>&1; then
      find . -mindepth 1 -printf '%y %m %p\002%l\0' | tr '\000\n' '\n\001'
    else
      D_STX=$(printf '\002')
      for D_M in $D_MODES; do
        find . ! -name . -type "${D_M%%:*}" -perm "${D_M#*:}" -print0 | tr '\000\n' '\n\001' |
          sed "s/^/${D_M%%:*} ${D_M#*:} /; s/\$/$D_STX/"
      done
      find . -type l -exec sh -c 'for D_P; do
        D_L=$(readlink "$D_P" && echo x)
        printf "l 777 %s\002%s\n" "$(printf %s "$D_P" | tr "\n" "\001")" "$(printf %s "${D_L%?x}" | tr "\n" "\001")"
      done' sh {} +
    fi
  ) | sort
}

misshapen() { # a few differing names for the message; names with odd bytes may be missing from it
  plain_names "$2" | sort >"$D_ROOT/.deployctl/incoming/$D_RUN/expected" 2>/dev/null || return
  shape "$1" | sed "s/$(printf '\002').*//" | sort | diff "$D_ROOT/.deployctl/incoming/$D_RUN/expected" - |
    sed -n 's/^< /lacks /p; s/^> /has /p' | head -n 4 | tr '\n' ';'
  rm -f "$D_ROOT/.deployctl/incoming/$D_RUN/expected"
}

verify_content() {
  lists
  grep '^f' "$2" | grep -v '\\' | cut -d' ' -f4- | sed 's| | *./|' >"$D_LISTS/sums" || blame "$D_LISTS" 31 "cannot write a list"
  sed -n -e '/^l/b take' -e '/\\/!d' -e ':take' -e 's/^\([fl]\) [0-7]* [0-9]* \([0-9a-f]*\) /\1 \2 /p' "$2" |
    octal_names >"$D_LISTS/odd" || blame "$D_LISTS" 31 "cannot write a list"
  D_SETTLED=
  if [ -f "$2.settled" ]; then
    D_SETTLED=$D_LISTS/settled
    cp "$2.settled" "$D_SETTLED" && expect_settled || blame "$D_LISTS" 31 "cannot write a list"
  fi
  (
    cd "$1" || exit 1
    if [ -s "$D_LISTS/sums" ] && ! sums_match && ! sha -c "$D_LISTS/sums" >/dev/null 2>&1; then
      sha -c "$D_LISTS/sums" 2>/dev/null | grep -v ': OK$' | head -n 3 | tr '\n' ';'
      exit 1
    fi
    while read -r D_TYPE D_SUM && IFS= read -r D_NAME; do
      [ "$D_TYPE$D_LINKS" != l ] || continue # its text is part of the shape
      D_FILE=$(printf '%bx' "$D_NAME")
      [ "$(sum_of "./${D_FILE%x}")" = "$D_SUM" ] || settled "./${D_FILE%x}" || { printf '%s: FAILED' "$D_NAME"; exit 1; }
    done <"$D_LISTS/odd"
  ) >"$D_LISTS/wrong" 2>&1
  D_STATUS=$?
  [ $D_STATUS = 0 ] || D_WRONG="content differs from the manifest: $(cat "$D_LISTS/wrong")"
  rm -f "$D_LISTS/sums" "$D_LISTS/odd" "$D_LISTS/wrong" "$D_LISTS/settled"
  [ -z "${D_TEMPORARY-}" ] || rm -rf "$D_TEMPORARY"
  return $D_STATUS
}

# What staged hooks changed or added is expected as they left it: lines of sha256sum, or `- NAME` for what they removed.
expect_settled() {
  awk 'NR == FNR { if ($0 !~ /^\\/) { name = substr($0, index($0, " ") + 1); sub(/^[ *]/, "", name); seen[name] = 1; if ($1 != "-") own[++n] = $1 " *" name }; next }
    !((substr($0, 67)) in seen) { print }
    END { for (i = 1; i <= n; i++) print own[i] }' "$D_SETTLED" "$D_LISTS/sums" >"$D_LISTS/expected" &&
    mv -f "$D_LISTS/expected" "$D_LISTS/sums"
}

settled() { # a file with an odd name: it is as a staged hook left it, or gone as one left it
  [ -n "$D_SETTLED" ] || return 1
  if [ -e "$1" ]; then
    grep -qxF -e "$(sha "$1")" "$D_SETTLED"
  else
    grep -qxF -e "-  $1" "$D_SETTLED"
  fi
}

sum_of() { # of a file's content or a link's text
  [ -L "$1" ] || { sha_of "$1"; return; }
  D_L=$(readlink "$1" && echo x)
  printf %s "${D_L%?x}" | sha | cut -c1-64
}

sums_match() { # one process for thousands of files; sha -c has the last word when it finds a difference
  has_openssl && has xargs && has cmp &&
    cut -c67- "$D_LISTS/sums" | tr '\n' '\000' | xargs -0 openssl dgst -sha256 -r 2>/dev/null | cmp -s - "$D_LISTS/sums"
}

octal_names() { # "f SUM na\x0ame" to two lines: "f SUM" and a name for printf %b
  awk 'function hex(c) { return index("0123456789abcdef", c) - 1 }
    { s = $0; sub(/^[^ ]* [^ ]* /, "", s); print $1, $2; out = ""
      while ((i = index(s, "\\x")) > 0) {
        out = out substr(s, 1, i - 1) sprintf("\\0%03o", hex(substr(s, i + 2, 1)) * 16 + hex(substr(s, i + 3, 1)))
        s = substr(s, i + 4)
      }
      print out s }'
}
