"""Remote commands as text, and what comes back as fields; pure, tested as text.

Owns quoting (the one place where a value meets a remote shell) and the framing of answers; the commands themselves
stand in remote.sh.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from importlib import resources

from deployctl.errors import Code, HostError
from deployctl.host.layout import way_up
from deployctl.model import Shared

COMMAND = "sh -s"  # any login shell understands it: no quoting, no redirection, no path
NOISE_BYTES = 64 << 10


def quote(value: str) -> str:
    """Quote a value for a POSIX shell; every byte passes unchanged, NUL is refused."""
    if "\0" in value:
        raise ValueError("a value for a remote command holds a NUL byte")
    return "'" + value.replace("'", "'\\''") + "'"


def library() -> str:
    """Return remote.sh without comments and blank lines: it is sent with every command."""
    text = resources.files("deployctl.host").joinpath("remote.sh").read_text()
    return re.sub(r"(?m)^\s*(#.*)?\n", "", text)


_LIBRARY = library()


@dataclass(frozen=True, slots=True)
class Script:
    """One remote command: `do_<name>` of remote.sh with values; `text` is what is sent, `nonce` frames the answer."""

    name: str
    nonce: str
    text: str

    @classmethod
    def build(cls, name: str, *, run: str, root: str, shared: Shared | None = None, **values: str) -> Script:
        nonce = f"@{secrets.token_hex(8)}"
        settings = {"NONCE": nonce, "DO": name, "RUN": run, "ROOT": root, "DRY": "", **values}
        lines = ["set -u; LC_ALL=C; export LC_ALL; unset CDPATH"]
        lines += [f"D_{key}={quote(value)}" for key, value in settings.items()]
        lines.append(share_function(shared or Shared()))
        return cls(name, nonce, "\n".join([*lines, _LIBRARY + "main", ""]))


def share_function(shared: Shared) -> str:
    calls = [f"share_dir {quote(path)} {quote(way_up(path))}" for path in shared.dirs]
    calls += [f"share_file {quote(path)} {quote(way_up(path))}" for path in shared.files]
    return "share() { " + " && ".join(calls or [":"]) + "; }"


@dataclass(slots=True)
class Answer:
    """The framed lines of one command, in order, and the tail of whatever else it printed."""

    nonce: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    status: int | None = None
    noise: str = ""
    _rest: bytes = b""

    def feed(self, data: bytes) -> None:
        """Take in standard output; lines that are not ours are noise of the login shell."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > NOISE_BYTES:
            self._rest = self._rest[-NOISE_BYTES:]
        for raw in lines:
            text = raw.decode("utf-8", "surrogateescape")
            if text.startswith(self.nonce + " "):
                _, key, rest = (text + " ").split(" ", 2)
                if key == "exit":
                    self.status = int(rest) if rest.strip().isdigit() else None
                else:
                    self.fields.append((key, rest[:-1]))
            else:
                self.add_noise(text + "\n")

    def add_noise(self, text: str) -> None:
        self.noise = (self.noise + text)[-NOISE_BYTES:]

    def all(self, key: str) -> list[str]:
        return [value for name, value in self.fields if name == key]

    def one(self, key: str) -> str | None:
        """Return the last value under `key`, None when there is none or it is empty."""
        return next((value for name, value in reversed(self.fields) if name == key), None) or None

    def raise_failure(self) -> None:
        """Raise the HostError that the command reported, or that its ending amounts to."""
        if (text := self.one("fail")) is not None:
            code, _, message = text.partition(" ")
            raise HostError(Code(int(code)), printable(message))
        if self.status != 0:
            said = printable(self.noise.strip()[-300:])
            raise HostError(
                Code.UNEXPECTED,
                f"the remote command ended with status {self.status}" + (f": {said}" if said else ""),
            )


def printable(text: str) -> str:
    """Make remote text safe for a terminal: control characters and undecodable bytes are shown escaped."""
    return "".join(
        c
        if c.isprintable()
        else " "
        if c in "\n\t"
        else c.encode("utf-8", "surrogateescape").hex(" ").join(["<", ">"])
        for c in text
    )
