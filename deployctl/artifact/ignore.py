"""Which paths of SOURCE are left out: gitignore patterns, decided entry by entry on the way down, as git does.

Owns the meaning of patterns; refuses to know the file system, apart from `.deployignore`, which `read_deployignore`
reads. The last pattern that matches a path itself decides; what is in an excluded directory is never looked at, so it
can't be brought back with `!`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence

from pathspec import GitIgnoreSpec

from deployctl.errors import SourceError

DEPLOYIGNORE = b".deployignore"

_MAX_BYTES = 1024 * 1024
_GROUP = re.compile(r"\(\?P<\w+>")

Excluded = Callable[[bytes, bool], bool]


def compile_patterns(lines: Sequence[str]) -> Excluded | None:
    """A function of path and "is a directory" that says whether the path is left out, None where nothing is.

    SourceError names patterns that are none.
    """
    runs = _runs(lines)
    if not any(include for include, _ in runs):
        return None
    # Last first, and one expression for neighbours that say the same. DOTALL: names may hold newlines.
    tests = [(include, re.compile("|".join(texts), re.DOTALL).fullmatch) for include, texts in reversed(runs)]

    def excluded(path: bytes, is_dir: bool) -> bool:
        text = path.decode("utf-8", "surrogateescape") + ("/" if is_dir else "")
        for include, matches in tests:
            # The whole text has to match: pathspec's expressions also match what is below a directory.
            if matches(text):
                return include
        return False

    return excluded


def _runs(lines: Sequence[str]) -> list[tuple[bool, list[str]]]:
    """Regular expressions by whether they exclude or bring back, neighbours of one kind together."""
    runs: list[tuple[bool, list[str]]] = []
    problems: list[str] = []
    for line in lines:
        try:
            patterns = GitIgnoreSpec.from_lines([_by_entry(line)]).patterns
        except ValueError:
            problems.append(f"exclude: not a gitignore pattern: {line!r}")
            continue
        for pattern in patterns:
            if pattern.include is not None and pattern.regex is not None:
                if not runs or runs[-1][0] != pattern.include:
                    runs.append((pattern.include, []))
                runs[-1][1].append(_GROUP.sub("(?:", str(pattern.regex.pattern)))
    if problems:
        raise SourceError(problems)
    return runs


def _by_entry(line: str) -> str:
    """The pattern in a form that pathspec turns into an expression for the entry itself."""
    bang, body = ("!", line[1:]) if line.startswith("!") else ("", line)
    if not body.endswith("\\ "):
        body = body.rstrip()
    if body in {"*", "**", "/**", "**/*", "/**/*"}:
        return f"{bang}**/?*"
    if body in {"*/", "**/", "/**/", "**/*/", "/**/*/"}:
        return f"{bang}**/?*/"
    return f"{bang}{body}/*" if body.endswith("/**") else bang + body


def read_deployignore(directory: bytes) -> list[str]:
    """The patterns of `.deployignore` in `directory`, none if there is no such file; SourceError if it can't be read."""
    try:
        handle = os.open(
            directory + b"/" + DEPLOYIGNORE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SourceError(f".deployignore: cannot be read: {os.strerror(error.errno or 0)}") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise SourceError(".deployignore: is not a file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(_MAX_BYTES + 1)
    finally:
        os.close(handle)
    if len(data) > _MAX_BYTES:
        raise SourceError(".deployignore: is larger than 1 MiB")
    return data.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n").split("\n")
