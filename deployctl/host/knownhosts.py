"""known_hosts files: which keys a host may show, which are revoked, and adding one that was learned.

Owns the format, read tolerantly: a line that makes no sense is a warning, never an error and never the loss of others.
Read once before workers are forked; refuses to decide what follows from a key (see `hostkey`).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deployctl.host.sshconfig import matches
from deployctl.host.target import Target


@dataclass(frozen=True, slots=True)
class Known:
    """One key on one line; `blob` is the key as SSH sends it."""

    type: str
    blob: bytes
    where: str  # FILE:LINE
    revoked: bool = False

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.blob)


def fingerprint(blob: bytes) -> str:
    """As OpenSSH prints it: `SHA256:` and base64 without padding."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


@dataclass(slots=True)
class Answer:
    """What the files say about one host."""

    keys: list[Known] = field(default_factory=list)
    portless: list[Known] = field(default_factory=list)  # under the name alone though the port is not 22
    revoked: list[Known] = field(default_factory=list)  # for every name

    @property
    def types(self) -> list[str]:
        return list(dict.fromkeys(known.type for known in (*self.keys, *self.portless)))


@dataclass(slots=True)
class _File:
    plain: dict[str, list[Known]] = field(default_factory=dict)
    patterns: list[tuple[list[str], Known]] = field(default_factory=list)
    hashed: list[tuple[bytes, bytes, Known]] = field(default_factory=list)  # salt, HMAC-SHA1 of the name

    def find(self, name: str) -> list[Known]:
        found = list(self.plain.get(name, ()))
        found += [known for patterns, known in self.patterns if matches(patterns, name)]
        encoded = name.encode()
        found += [
            known for salt, digest, known in self.hashed if hmac.digest(salt, encoded, "sha1") == digest
        ]
        return found


class KnownHosts:
    """An index over the files of all targets; `warnings` names lines that count for nothing, as FILE:LINE."""

    def __init__(self, files: Iterable[str] = ()) -> None:
        self.warnings: list[str] = []
        self._files: dict[str, _File] = {}
        for path in files:
            if path not in self._files:
                self._files[path] = self._read(path)

    @classmethod
    def load(cls, targets: Sequence[Target]) -> KnownHosts:
        return cls(path for target in targets for one in (*target.hops, target) for path in one.known_hosts)

    def lookup(self, target: Target) -> Answer:
        """Costs a microsecond for each hashed line; the rest is a dictionary."""
        answer = Answer()
        for number, name in enumerate(target.key_names):
            for path in target.known_hosts:
                for known in self._files[path].find(name) if path in self._files else ():
                    kind = answer.revoked if known.revoked else answer.portless if number else answer.keys
                    kind.append(known)
        return answer

    def _read(self, path: str) -> _File:
        found = _File()
        try:
            raw = Path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return found
        except OSError as error:
            self.warnings.append(f"{path}: cannot be read: {error.strerror}")
            return found
        for number, line in enumerate(raw.splitlines(), 1):
            words = line.split()
            if words and not words[0].startswith(b"#"):
                problem = self._line(words, f"{path}:{number}", found)
                if problem:
                    self.warnings.append(f"{path}:{number}: {problem}, ignored")
        return found

    def _line(self, words: list[bytes], where: str, into: _File) -> str | None:
        """Take one line in; returns what is wrong with it, if anything."""
        marker = words.pop(0) if words[0].startswith(b"@") else b""
        if marker == b"@cert-authority":
            return "certificate authorities for host keys are not supported"
        if marker not in {b"", b"@revoked"} or len(words) < 3:
            return "not a host key"
        try:
            names, kind = (
                words[0].decode().lower() if words[0][:1] != b"|" else words[0].decode(),
                words[1].decode(),
            )
            blob = base64.b64decode(words[2], validate=True)
            if _type_of(blob) != kind:
                return "the key is not of the type that the line says"
        except (UnicodeDecodeError, binascii.Error, ValueError):
            return "not a host key"
        known = Known(kind, blob, where, revoked=bool(marker))
        if names.startswith("|"):
            return _take_hashed(names, known, into)
        patterns = [name for name in names.split(",") if name]
        if any(mark in names for mark in "*?!"):
            into.patterns.append((patterns, known))
        else:
            for name in patterns:
                into.plain.setdefault(_plain_name(name), []).append(known)
        return None


def _plain_name(name: str) -> str:
    # "[host]:22" is what host alone means.
    return name[1:-4] if name.startswith("[") and name.endswith("]:22") else name


def _take_hashed(names: str, known: Known, into: _File) -> str | None:
    try:
        _, version, salt, digest = names.split("|")
        if version != "1":
            return "the way the name is hashed is not known"
        into.hashed.append(
            (base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True), known)
        )
    except (ValueError, binascii.Error):
        return "not a hashed name"
    return None


def _type_of(blob: bytes) -> str:
    size = int.from_bytes(blob[:4], "big")
    return blob[4 : 4 + size].decode("ascii")


def learned_line(target: Target, kind: str, blob: bytes) -> str:
    """The line that makes this key known, without a newline."""
    return f"{target.key_names[0]} {kind} {base64.b64encode(blob).decode()}"


def append_learned(path: str | Path, lines: Iterable[str]) -> list[str]:
    """Add lines that are not there yet, all or none; returns those added. Only one process at a time may call it.

    A reader sees the old file or the new one, never half of it. The mode stays; a new file is 0600 and a new directory
    0700; behind a symbolic link it is the link's target that changes. Raises OSError.
    """
    real = Path(os.path.realpath(path))
    real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        before, mode = real.read_bytes(), real.stat().st_mode & 0o7777
    except FileNotFoundError:
        before, mode = b"", 0o600
    there = set(before.splitlines())
    added = [line for line in dict.fromkeys(lines) if line.encode() not in there]
    if not added:
        return []
    gap = b"\n" if before and not before.endswith(b"\n") else b""
    handle, temporary = tempfile.mkstemp(prefix=".known_hosts.", dir=real.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(before + gap + "".join(f"{line}\n" for line in added).encode())
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(real)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    return added
