"""Remote commands as text, and what comes back as fields; pure, tested as text.

Owns quoting (the one place where a value meets a remote shell) and the framing of answers; the commands themselves
stand in remote.sh.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Self

from deployctl.errors import Code, HostError
from deployctl.host.layout import way_up
from deployctl.model import Shared

COMMAND = "sh -s"  # any login shell understands it: no quoting, no redirection, no path
NOISE_BYTES = 64 << 10
ANSWER_BYTES = 512 << 20  # of memory for one answer; the manifest of a million files needs 300 MB
FIELD_BYTES = 200  # what a field costs beyond its text


def quote(value: str) -> str:
    """Quote a value for a POSIX shell; every byte passes unchanged, NUL is refused."""
    if "\0" in value:
        raise ValueError("a value for a remote command holds a NUL byte")
    return "'" + value.replace("'", "'\\''") + "'"


def library(name: str) -> str:
    """Return one of our shell files without comments and blank lines: it is sent with every command that needs it."""
    text = resources.files("deployctl.host").joinpath(name).read_text("utf-8")
    return re.sub(r"(?m)^\s*(#.*)?\n", "", text)


_TEXTS = {
    "release": "".join(library(f"{name}.sh") for name in ("stage", "verify", "live")),
    **{
        name: library(f"{name}.sh")
        for name in (
            "remote",
            "lock",
            "moments",
            "compare",
            "delta",
            "reading",
            "upkeep",
            "everyday",
            "parts",
        )
    },
}
_COMPARE = frozenset(
    {"verify", "whole", "ready", "inspect", "activate"}
)  # look at a release with functions of compare.sh
_UPON_LOCK = frozenset({"moments", "upkeep", "everyday"})  # these use its functions
_UPON_DELTA = frozenset({"probe", "stage", "prune"})


def parts_for(name: str) -> tuple[str, ...]:
    """Return the parts that `do_<name>` needs, in order: those that define it and what it calls.

    The fewer the better: a shell takes 1 ms to read 10 KB.
    """
    home = next(part for part, text in _TEXTS.items() if f"do_{name}()" in text)
    needed = [
        "remote",
        *(["release"] if home != "lock" else []),
        *(["lock"] if name == "activate" or home in _UPON_LOCK else []),
        *(["compare"] if name in _COMPARE else []),
        *(["delta"] if name in _UPON_DELTA else []),
        home,
    ]
    return tuple(dict.fromkeys(needed))


def functions_of(parts: Iterable[str]) -> str:
    return "".join(_TEXTS[part] for part in parts)


@dataclass(frozen=True, slots=True)
class Script:
    """One remote command: `do_<name>` of remote.sh with values; `nonce` frames its answer.

    `body` is one subshell, so a shell that carries it out is as it was; it has to know the functions of `parts`.
    """

    name: str
    nonce: str
    parts: tuple[str, ...]
    body: str
    head: str  # without the shell functions and without the values of a hook's environment, for --debug

    @property
    def text(self) -> str:
        """What a new shell needs to carry it out."""
        return functions_of(self.parts) + self.body

    @classmethod
    def build(
        cls,
        name: str,
        values: Mapping[str, str],
        *,
        run: str,
        root: str,
        shared: Shared | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Script:
        nonce = f"@{secrets.token_hex(8)}"
        settings = {
            "NONCE": nonce,
            "DO": name,
            "RUN": run,
            "ROOT": root,
            "DRY": "",
            "LOCK": "",
            "ABLE": "",
            **values,
        }
        lines = [
            "D_LC=${LC_ALL-}; set -u; LC_ALL=C; export LC_ALL; unset CDPATH TAR_OPTIONS GREP_OPTIONS GZIP"
        ]
        lines += [f"D_{key}={quote(value)}" for key, value in settings.items()]
        lines.append(share_function(shared or Shared()))
        head = [f"sh -s <<: do_{name}", *lines[1:], *(f"export {key}=…" for key in environment or {})]
        lines.append(environment_function(environment or {}))
        # One compound command: a line behind it that has not been read yet would be taken by whoever watches the input.
        body = "\n".join(["{ (", *lines, "main", ")", f"printf '{nonce} exit %s\\n' $?; }}", ""])
        return cls(name, nonce, parts_for(name), body, "\n".join(head))


def share_function(shared: Shared) -> str:
    calls = [f"share_dir {quote(path)} {quote(way_up(path))}" for path in shared.dirs]
    calls += [f"share_file {quote(path)} {quote(way_up(path))}" for path in shared.files]
    return "share() { " + " && ".join(calls or [":"]) + "; }"


def environment_function(environment: Mapping[str, str]) -> str:
    """Return the function that gives a hook its variables, and the locale that the login had."""
    exports = [f"export {name}={quote(value)};" for name, value in environment.items()]
    return (
        'environment() { if [ -n "$D_LC" ]; then LC_ALL=$D_LC; else unset LC_ALL; fi; '
        + " ".join(exports)
        + " }"
    )


@dataclass(slots=True)
class Answer:
    """The framed lines of one command, in order, and the tail of whatever else it printed."""

    nonce: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    status: int | None = None
    noise: str = ""
    tap: Callable[[bytes], None] | None = None  # takes what stands between our lines, from `begin` on
    _rest: bytes = b""
    _tapped: bool = False
    _kept_bytes: int = 0

    @classmethod
    def of_errors(cls, nonce: str, tap: Callable[[bytes], None]) -> Self:
        """Return what takes standard error: all of it is the hook's, up to our one line at its end."""
        return cls(nonce, tap=tap, _tapped=True)

    def feed(self, data: bytes) -> None:
        """Take in standard output; lines that are not ours are noise of the login shell."""
        if self._tapped and self.tap and self.nonce.encode() not in self._rest + data:
            whole = (self._rest + data).rfind(b"\n") + 1
            block, self._rest = (self._rest + data)[:whole], (self._rest + data)[whole:]
            if block:
                self.tap(block)
            data = b""  # what may be the beginning of a line of ours waits for its end
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > NOISE_BYTES:
            if self._tapped and self.tap:
                self.tap(self._rest)
            self._rest = b"" if self._tapped else self._rest[-NOISE_BYTES:]
        ours = self.nonce.encode() + b" "
        for raw in lines:
            if raw.startswith(ours):
                text = raw.decode("utf-8", "surrogateescape")
                _, key, rest = (text + " ").split(" ", 2)
                if key == "exit":
                    self.status = number(rest.strip())
                else:
                    self._keep(key, rest[:-1])
                    self._tapped |= key == "begin"
            elif self._tapped and self.tap:
                self.tap(raw + b"\n")
            else:
                self.add_noise(raw.decode("utf-8", "surrogateescape") + "\n")

    def _keep(self, key: str, value: str) -> None:
        self._kept_bytes += FIELD_BYTES + len(value)
        if self._kept_bytes > ANSWER_BYTES:
            raise HostError(Code.LOST, f"the host answers without an end: more than {ANSWER_BYTES >> 20} MiB")
        self.fields.append((key, value))

    def add_noise(self, text: str) -> None:
        self.noise = (self.noise + text)[-NOISE_BYTES:]

    def add_noise_bytes(self, data: bytes) -> None:
        self.add_noise(data.decode("utf-8", "surrogateescape"))

    def flush(self) -> None:
        """Pass on what came behind the last newline."""
        if self._rest and self._tapped and self.tap:
            self.tap(self._rest)
            self._rest = b""

    def all(self, key: str) -> list[str]:
        return [value for name, value in self.fields if name == key]

    def one(self, key: str) -> str | None:
        """Return the last value under `key`, None when there is none or it is empty."""
        return next((value for name, value in reversed(self.fields) if name == key), None) or None

    def raise_failure(self) -> None:
        """Raise the HostError that the command reported, or that its ending amounts to."""
        if (text := self.one("fail")) is not None:
            code, _, message = text.partition(" ")
            if number(code) not in set(Code):
                raise HostError(Code.LOST, f"the host's answer makes no sense: {printable(text[:100])}")
            by = self.one("taken_by")
            raise HostError(Code(int(code)), printable(message), data={"taken_by": by} if by else {})
        if self.status != 0:
            said = printable(self.noise.strip()[-300:])
            raise HostError(
                Code.LOST if self.status is not None and self.status > 128 else Code.UNEXPECTED,
                f"the remote command ended with status {self.status}" + (f": {said}" if said else ""),
            )


def number(text: str | None) -> int | None:
    """Return the whole number that a host has sent; None for anything else, digits of other scripts and thousands of them too."""
    return int(text) if text and re.fullmatch("[0-9]{1,18}", text) else None


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
