# Remote commands of a run's moments: hooks and checks. Sent behind remote.sh and lock.sh, whose functions they use.

# ---- hooks: output as it comes, between our lines; killed with its children when the channel closes ---------------

do_hook() {
  # A link of somebody else that is back may lead nowhere.
  cd "$D_ROOT/$D_DIR" 2>/dev/null || { [ "$D_DIR" = current ] && cd "$D_ROOT"; } || fail 40 "cannot enter $D_ROOT/$D_DIR"
  environment
  say group "$(process_group)"
  say begin hook
  sh -c "$D_COMMAND"
  D_STATUS=$?
  printf '\n%s end hook\n' "$D_NONCE" >&2 # both streams have come this far
  printf '\n'
  say status "$D_STATUS"
}

# Is anything of that process group still there? Waits a moment for the kernel to be done with it.
do_gone() {
  end_group "$D_GROUP"
  ! group_lives "$D_GROUP" || fail 40 "processes of the hook are still running"
}

# ---- checks from the host ------------------------------------------------------------------------------------------

do_check_url() {
  D_BODY=$D_ROOT/.deployctl/incoming/$D_RUN/body
  if has curl; then
    [ "$D_FOLLOW" = 1 ] && D_FOLLOW=-L || D_FOLLOW=
    D_GOT=$(curl -sS $D_FOLLOW -o "$D_BODY" -w '%{http_code}' --max-time "$D_LIMIT" "$D_URL" 2>"$D_BODY.error")
  elif has wget; then
    D_MORE= # busybox's wget knows none of these, and with -T some of its versions crash
    wget --help 2>&1 | grep -q content-on-error && D_MORE="--content-on-error -t 1 -T $D_LIMIT" &&
      [ "$D_FOLLOW" != 1 ] && D_MORE="$D_MORE --max-redirect=0"
    wget -q $D_MORE -S -O "$D_BODY" "$D_URL" 2>"$D_BODY.error"
    D_GOT=$(sed -n 's/^\( \|wget: server returned error: \)*HTTP\/[0-9.]* \([0-9][0-9][0-9]\).*/\2/p' "$D_BODY.error" | tail -n 1)
  else
    fail 30 "curl and wget are missing on the host: a check with from: host needs one of them"
  fi
  say http "${D_GOT:-000}"
  say error "$(one_line "$(tail -n 1 "$D_BODY.error" 2>/dev/null)")"
  if [ -n "$D_TEXT" ] && [ -f "$D_BODY" ]; then
    # Not grep: to it a text of several lines is a choice of several texts.
    D_SAID=$(head -c 1048576 "$D_BODY" | tr -d '\000' && echo x)
    case ${D_SAID%x} in *"$D_TEXT"*) say text found ;; esac
  fi
  rm -f "$D_BODY" "$D_BODY.error"
}
