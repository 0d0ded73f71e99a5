"""A first push of a large tree: hosts get parts while the packer still writes them, before anybody knows the tree's digest.

Owns when that is possible. The release is chosen, and all of it verified, once packing is done: until then nothing of it has a name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deployctl.host.plan import room_kib
from deployctl.release.member import Member
from deployctl.release.packer import Packer
from deployctl.release.run import Run


def send_early(run: Run, packer: Packer, wait: Callable[[Callable[[], bool]], None]) -> None:
    """Let all hosts follow the packer to its end, if none of them holds anything that could make the whole unnecessary."""
    members = run.sound()
    growing = packer.growing
    if not packer.announces or not members or not all(_has_nothing(m, packer) for m in members):
        return
    wait(lambda: packer.tree is not None or bool(growing.parts))
    if packer.tree is not None or run.fleet.stopping():
        return
    workers = {member.worker for member in members}
    if len(workers) < len(members):
        return  # each sends to one host at a time

    def tell(news: Mapping[str, Any]) -> None:
        for worker in workers:
            if worker is not None:
                run.loop.crew.send(worker, {"do": "grown", **news})

    def begin(_member: Member) -> Mapping[str, Any]:
        return {
            "path": growing.path,
            "parts": list(growing.parts),
            "whole": growing.whole,
            "name": growing.name,
        }

    growing.follows = tell
    try:
        run.fleet.each("early", members, begin)
    except BaseException:
        _count(members)
        raise
    finally:
        growing.follows = None
    if run.fleet.stopping():
        _count(members)


def _has_nothing(member: Member, packer: Packer) -> bool:
    """Whether the host will need the whole, can take it as it is packed, and has room for it even if it packs badly."""
    facts = member.facts
    if facts is None or facts.manifests or facts.artifacts or facts.parts or not facts.zstd:
        return False
    size_bytes, entries = packer.size
    needed_kib = room_kib(2 * size_bytes, entries)
    return (facts.free_kib is None or facts.free_kib > needed_kib) and (
        not facts.free_inodes or facts.free_inodes > 2 * entries
    )


def _count(members: Sequence[Member]) -> None:
    """What was sent to hosts that will get no more of it was sent all the same."""
    for member in members:
        member.sent_bytes += member.upload_bytes[0]
