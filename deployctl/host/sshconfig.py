"""What ssh_config files say about one host: Host, Match, Include and tokens as ssh_config(5) has them.

Owns reading and matching; refuses to know which keywords matter to us (see `target`). Canonicalization is not done.
paramiko's own reader knows no Include, takes one file only and needs another package for `Match exec`.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deployctl.errors import UsageError
from deployctl.model import for_others

DEPTH = 16  # of Include, as OpenSSH
EXEC_TIMEOUT_S = 10.0
MANY = frozenset({"identityfile", "certificatefile"})  # every value counts; of the others the first
RAW = frozenset({"proxycommand"})  # the rest of the line, not words
_LINE = re.compile(r"(\w+)(?:\s*=\s*|\s+)(.*)")
_TOKEN = re.compile(r"%(.)|\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Line:
    where: str  # FILE:LINE
    keyword: str  # lower case
    words: tuple[str, ...]
    included: tuple[tuple[Line, ...], ...] = ()  # of an Include, one for each file


@dataclass(slots=True)
class Options:
    """The answer for one host: keyword (lower case) to its words, in the order in which they were found."""

    words: dict[str, list[str]] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)

    def first(self, keyword: str) -> str | None:
        found = self.words.get(keyword)
        return found[0] if found else None

    def add(self, line: Line) -> None:
        if line.keyword in MANY:
            known = self.words.setdefault(line.keyword, [])
            known += [word for word in line.words if word not in known]
        elif line.keyword not in self.words:
            self.words[line.keyword] = list(line.words)
        self.where.setdefault(line.keyword, line.where)


@dataclass(frozen=True, slots=True)
class Local:
    """The near side, as tokens and Match see it."""

    user: str
    home: str
    environ: Mapping[str, str]


def expand(text: str, tokens: Mapping[str, str], environ: Mapping[str, str], where: str) -> str:
    """`%x` and `${NAME}` replaced; an unknown token or an unset variable is a UsageError that names `where`."""

    def replace(found: re.Match[str]) -> str:
        token, name = found.groups()
        if token is None:
            if name not in environ:
                raise UsageError(f"{where}: environment variable {name} is not set")
            return environ[name]
        if token == "%":  # noqa: S105 - no password
            return "%"
        if token not in tokens:
            raise UsageError(f"{where}: %{token} is not known here")
        return tokens[token]

    return _TOKEN.sub(replace, text)


def matches(patterns: Sequence[str], name: str) -> bool:
    """OpenSSH's pattern list: `*`, `?`, and `!` which rules out whatever the others say."""
    hit = False
    for pattern in patterns:
        bare = pattern.removeprefix("!").replace("[", "[[]")  # brackets have no meaning in OpenSSH
        if bare and fnmatch.fnmatchcase(name, bare):
            if pattern.startswith("!"):
                return False
            hit = True
    return hit


class SshConfig:
    """Files are read once, here; a missing one is empty. `warnings` gathers what could not be honoured."""

    def __init__(self, files: Sequence[Path], local: Local) -> None:
        self.local = local
        self.warnings: list[str] = []
        self._executed: dict[str, bool] = {}
        self._files = [self._read(path, base=path.parent, depth=0) for path in files]

    def lookup(self, host: str, *, user: str | None = None, port: int | None = None) -> Options:
        """What the files say about `host`; `user` and `port` stand before them, as on ssh's command line."""
        options = Options()
        if user is not None:
            options.words["user"] = [user]
        if port is not None:
            options.words["port"] = [str(port)]
        for final in (False, True):
            pass_ = _Pass(self, host, options, final=final)
            for lines in self._files:
                pass_.file(lines)
            if not pass_.wants_final:
                break
        return options

    def _read(self, path: Path, *, base: Path, depth: int) -> tuple[Line, ...]:
        try:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
        found: list[Line] = []
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.strip()
            if line and not line.startswith("#"):
                found.append(self._line(line, f"{path}:{number}", base, depth))
        return tuple(found)

    def _line(self, text: str, where: str, base: Path, depth: int) -> Line:
        split = _LINE.fullmatch(text)
        if split is None:
            raise UsageError(f"{where}: not a line of ssh_config: {text[:60]!r}")
        keyword, rest = split[1].lower(), split[2].strip()
        if keyword in RAW:
            return Line(where, keyword, (rest,))
        try:
            words = tuple(shlex.split(rest, comments=True))
        except ValueError as error:
            raise UsageError(f"{where}: {str(error).lower()}") from error
        if not words:
            raise UsageError(f"{where}: {split[1]} has no value")
        if keyword != "include":
            return Line(where, keyword, words)
        if depth >= DEPTH:
            raise UsageError(f"{where}: files include each other more than {DEPTH} deep")
        return Line(where, keyword, words, tuple(self._include(words, base, depth)))

    def _include(self, words: Sequence[str], base: Path, depth: int) -> list[tuple[Line, ...]]:
        found = []
        for word in words:
            pattern = self.local.home + word[1:] if word.startswith("~/") else word
            names = sorted(glob.glob(os.path.join(base, pattern)))  # noqa: PTH118, PTH207 - absolute ones too
            found += [self._read(Path(name), base=base, depth=depth + 1) for name in names]
        return found

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)

    def run(self, command: str, where: str) -> bool:
        """Whether a `Match exec` command exits 0; each text is run once."""
        if command not in self._executed:
            try:
                done = subprocess.run(  # noqa: S602 - the user's own file asks for a shell
                    command, shell=True, check=False, timeout=EXEC_TIMEOUT_S, stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=for_others(os.environ),
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise UsageError(
                    f"{where}: the command of Match exec took longer than {EXEC_TIMEOUT_S:g} s"
                ) from None
            self._executed[command] = done.returncode == 0
        return self._executed[command]


class _Pass:
    """One walk over all lines for one host."""

    def __init__(self, config: SshConfig, host: str, options: Options, *, final: bool) -> None:
        self.config = config
        self.host = host
        self.options = options
        self.final = final
        self.wants_final = False

    def file(self, lines: Sequence[Line], *, within: bool = True) -> None:
        active = within
        for line in lines:
            if line.keyword == "host":
                active = within and matches([word.lower() for word in line.words], self.host.lower())
            elif line.keyword == "match":
                active = within and self._match(line)
            elif line.keyword == "include":
                for included in line.included:
                    self.file(included, within=active)
            elif active:
                self.options.add(line)

    def _tokens(self) -> dict[str, str]:
        local = self.config.local
        name = os.uname().nodename
        user = self.options.first("user") or local.user
        return {
            "h": self._hostname(), "n": self.host, "p": self.options.first("port") or "22", "r": user,
            "u": local.user, "d": local.home, "l": name, "L": name.split(".")[0],
        }  # fmt: skip

    def _hostname(self) -> str:
        return (self.options.first("hostname") or self.host).replace("%h", self.host).replace("%%", "%")

    def _match(self, line: Line) -> bool:
        words = list(line.words)
        hit = True
        while words:
            word = words.pop(0).lower()
            criterion = word.removeprefix("!")
            if criterion in {"all", "canonical", "final"}:
                self.wants_final |= criterion == "final" and not self.final
                found = criterion == "all" or (criterion == "final" and self.final)
            elif not words:
                raise UsageError(f"{line.where}: Match {criterion} needs a value")
            else:
                value = words.pop(0)
                # Once false, later commands are not run, as in OpenSSH.
                found = hit and self._criterion(criterion, value, line.where)
            hit = hit and found != word.startswith("!")
        return hit

    def _criterion(self, criterion: str, value: str, where: str) -> bool:
        local = self.config.local
        names: dict[str, Callable[[], str]] = {
            "host": self._hostname().lower,
            "originalhost": self.host.lower,
            "user": lambda: self.options.first("user") or local.user,
            "localuser": lambda: local.user,
        }
        if criterion in names:
            return matches(value.split(","), names[criterion]())
        if criterion == "exec":
            return self.config.run(expand(value, self._tokens(), local.environ, where), where)
        self.config.warn(f"{where}: Match {criterion} is not supported and counts as no match")
        return False
