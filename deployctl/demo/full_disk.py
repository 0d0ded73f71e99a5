"""`scp -t` of a host whose disk is full, or whose directory may not be written: runs as a script in place of scp.

Owns the receiving side of the scp protocol as far as it fails; says what OpenSSH's scp says. Standard library alone, since
it runs outside of the package.
"""

import os
import sys
from typing import BinaryIO, Literal

How = Literal["no-space", "not-permitted"]

_SAYS = {"no-space": "No space left on device", "not-permitted": "Permission denied"}


def receive(how: How, target: str, source: BinaryIO, answer: BinaryIO) -> int:
    """Take one file: half of it reaches the disk (`no-space`) or none (`not-permitted`); returns the exit status."""
    _say(answer, b"\0")
    line = source.readline()
    while line[:1] in {b"T", b"D"}:
        _say(answer, b"\0")
        line = source.readline()
    if not line.startswith(b"C"):
        return 1
    _, size, name = line.rstrip(b"\n").decode(errors="surrogateescape").split(" ", 2)
    path = os.path.join(target, name) if os.path.isdir(target) else target  # noqa: PTH112, PTH118 - starts faster
    complaint = f"\x01scp: {path}: {_SAYS[how]}\n".encode(errors="surrogateescape")
    if how == "no-space":
        _say(answer, b"\0")
        with open(path, "wb") as partial:  # noqa: PTH123
            partial.write(source.read(int(size) // 2))
        source.read(int(size) - int(size) // 2 + 1)
    _say(answer, complaint)
    source.read()
    return 1


def _say(answer: BinaryIO, text: bytes) -> None:
    answer.write(text)
    answer.flush()


if __name__ == "__main__":
    chosen: How = "not-permitted" if sys.argv[1] == "not-permitted" else "no-space"
    sys.exit(receive(chosen, sys.argv[-1], sys.stdin.buffer, sys.stdout.buffer))
