# A release on a host against its manifest: names, types, modes, link texts, content. Part of remote.sh.

verify_tree() { # DIR MANIFEST: names, types, modes and link texts at once, then content
  D_GOT=$(shape "$1" | sha | cut -c1-64)
  if [ "$D_GOT" != "$D_SHAPE" ] && [ "$D_GOT" != "$D_SHAPE_SHARED" ]; then
    D_WRONG="names, modes or links in the tree are not those of the manifest: $(misshapen "$1" "$2")"
    return 1
  fi
  verify_content "$1" "$2"
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
      find . -type l -print0 | tr '\000\n' '\n\001' | while IFS= read -r D_P; do
        D_L=$(real_name "$D_P")
        D_L=$(readlink "${D_L%x}" && echo x)
        printf 'l 777 %s\002%s\n' "$D_P" "$(printf %s "${D_L%?x}" | tr '\n' '\001')"
      done
    fi
  ) | sort
}

real_name() { printf '%sx' "$1" | tr '\001' '\n'; }

misshapen() { # a few differing names for the message; names with odd bytes may be missing from it
  sed -n 's/^\([fdl]\) 0*\([0-7]\{1,4\}\) [0-9]* [^ ]* \([^\\]*\)$/\1 \2 .\/\3/p' "$2" | sort >"$D_ROOT/.deployctl/incoming/$D_RUN/expected" 2>/dev/null || return
  shape "$1" | sed "s/$(printf '\002').*//" | sort | diff "$D_ROOT/.deployctl/incoming/$D_RUN/expected" - |
    sed -n 's/^< /lacks /p; s/^> /has /p' | head -n 4 | tr '\n' ';'
  rm -f "$D_ROOT/.deployctl/incoming/$D_RUN/expected"
}

verify_content() {
  D_LISTS=$D_ROOT/.deployctl/incoming/${D_RUN}
  if [ ! -d "$D_LISTS" ]; then # a look at a live release: leave nothing
    D_LISTS=$(mktemp -d 2>/dev/null) || D_LISTS=/tmp/deployctl-$D_RUN && mkdir -p "$D_LISTS"
    D_TEMPORARY=$D_LISTS
  fi
  grep '^f' "$2" | grep -v '\\' | cut -d' ' -f4- | sed 's| | *./|' >"$D_LISTS/sums" || blame "$D_LISTS" 31 "cannot write a list"
  sed -n '/\\/s/^\([fdl]\) [0-7]* [0-9]* \([-0-9a-f]*\) /\1 \2 /p' "$2" | octal_names >"$D_LISTS/odd"
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
      [ "$D_TYPE" = f ] || continue
      D_FILE=$(printf '%bx' "$D_NAME")
      [ "$(sha_of "./${D_FILE%x}")" = "$D_SUM" ] || settled "./${D_FILE%x}" || { printf '%s: FAILED' "$D_NAME"; exit 1; }
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
