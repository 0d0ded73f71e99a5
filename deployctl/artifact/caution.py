"""What a release may hold but rarely should: private keys, `.env`, `.git`, files that everyone may write; and
sticky directories, which arrive without that bit.

Owns the warnings; refuses to stop anything. Only what has the name of a key is opened, and only its first bytes read.
"""

from __future__ import annotations

import os
import stat

from deployctl.artifact.manifest import escape

_KEY_NAMES = frozenset({b"id_rsa", b"id_dsa", b"id_ecdsa", b"id_ecdsa_sk", b"id_ed25519", b"id_ed25519_sk"})
_KEY_ENDINGS = (b".pem", b".key")
_KEY_BYTES = 4096
_SHOWN = 10


class Caution:
    """Collects paths by kind of warning."""

    def __init__(self) -> None:
        self._paths: dict[str, list[bytes]] = {
            "a private key would be released": [],
            "a .env file would be released": [],
            "a git repository would be released": [],
            "everyone may write it": [],
            "its sticky bit is not carried": [],
        }
        self._keys, self._env, self._git, self._open, self._sticky = self._paths.values()

    def look(self, kind: str, mode: int, path: bytes, place: bytes) -> None:
        """Take note of one entry: `path` in the tree, `place` on this machine."""
        if kind == "l":
            return
        if mode & 0o002:
            self._open.append(path)
        name = path[path.rfind(b"/") + 1 :]
        if kind == "d":
            if mode & stat.S_ISVTX:
                self._sticky.append(path)
            if name == b".git":
                self._git.append(path)
        elif name == b".env":
            self._env.append(path)
        elif (name in _KEY_NAMES or name.endswith(_KEY_ENDINGS)) and _has_private_key(place):
            self._keys.append(path)

    def lines(self) -> tuple[str, ...]:
        """One line for each path, and one for all beyond the first ten of a kind."""
        lines: list[str] = []
        for what, found in self._paths.items():
            found.sort()
            lines += [f"{escape(path)}: {what}" for path in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"and {len(found) - _SHOWN} more: {what}")
        return tuple(lines)


def _has_private_key(place: bytes) -> bool:
    try:
        handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return b"PRIVATE KEY" in os.read(handle, _KEY_BYTES)
    except OSError:
        return False
    finally:
        os.close(handle)
