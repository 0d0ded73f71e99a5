"""Digests kept here speed a redeploy up; a wrong one is found out before anything is live, and the next push is right."""

from __future__ import annotations

import re
import time

from platformdirs import user_cache_path

from deployctl.artifact.digests import GRAIN_NS
from tests.delta.conftest import MakeWith
from tests.delta.kit import Site, arrived
from tests.support.proc import wait_until


def test_a_wrong_digest_harms_one_push_at_most(make_with: MakeWith, tree: Site) -> None:
    lab = make_with(count=2)
    assert lab.push(tree.root).outcome == "released"
    youngest_ns = max(path.lstat().st_ctime_ns for path in tree.root.rglob("*"))
    wait_until(lambda: time.time_ns() > youngest_ns + GRAIN_NS, 10, "times that are well past")
    tree.fill("d0/f00")
    second = lab.push(tree.root)
    arrived(lab, second, tree.root)
    [cache] = (user_cache_path("deployctl") / "digests").iterdir()
    text = cache.read_text()
    assert len(text.splitlines()) > 50
    cache.write_text(re.sub("[0-9a-f]{64}", "0" * 64, text))
    tree.fill("d0/f00")
    third = lab.push(tree.root)
    assert (third.code, lab.live) == (11, lab.serves(second.release))
    arrived(lab, lab.push(tree.root), tree.root)
