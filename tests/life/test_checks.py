"""Checks after activation: who asks, what is expected, how long, and that a failing one reverts the fleet."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.life.moments import Diary, configure, hooks
from tests.release.conftest import MakeLab
from tests.release.lab import Lab, tool_directory
from tests.release.running import Pushed
from tests.release.trees import make_site

pytestmark = pytest.mark.sshd


class Shop(http.server.ThreadingHTTPServer):
    """Answers with a status from the path, and with what `current` of a host leads to: /200/h01 …"""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[tuple[str, str]] = []
        self.roots: dict[str, Path] = {}
        self.fail_first = 0

    @property
    def url(self) -> str:
        return f"http://{{address}}:{self.server_address[1]}"


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Shop

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("User-Agent", "").split("/")[0]))
        _, status, host, *_ = [*self.path.split("/"), "", ""]
        if status == "drip":
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"H")
                    time.sleep(0.1)
            return
        if status == "garbage":
            self.wfile.write(b"\0\1\2 this is no HTTP\r\n\r\n")
            return
        if self.server.fail_first:
            self.server.fail_first -= 1
            status = "503"
        root = self.server.roots.get(host)
        lines = status == "lines"
        status = "200" if lines else status
        body = (
            b"one\ntwo $(three) *\nfour\n"
            if lines
            else f"serving {(root / 'current').readlink() if root else 'nothing'}\n".encode()
        )
        self.send_response(int(status))
        if status.startswith("3"):
            self.send_header("Location", "/200/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def lab(make_lab: MakeLab, shop: Shop) -> Lab:
    lab = make_lab(2)
    shop.roots = {place.name: place.root for place in lab}
    return lab


def with_check(lab: Lab, **check: Any) -> None:
    configure(lab, release={"check": {"timeout": "2s", "interval": "200ms", **check}})


def without(tmp_path: Path, *tools: str) -> str:
    return str(tool_directory(tmp_path / "tools", without=tools))


@pytest.mark.parametrize("who", ["here", "curl", "wget", "busybox wget"])
def test_a_url_is_asked_until_it_is_content(
    make_lab: MakeLab, site: Path, shop: Shop, tmp_path: Path, who: str
) -> None:
    """All four placeholders, the release id in the text; the first answers are not content."""
    lab = make_lab(1, path=without(tmp_path, "curl") if "wget" in who else None)
    if who == "busybox wget":
        (tmp_path / "tools/wget").unlink()
        (tmp_path / "tools/wget").symlink_to(tmp_path / "tools/busybox")
    shop.roots = {"h01": lab["h01"].root}
    shop.fail_first = 2
    url = f"{shop.url}/200/{{host}}/{{app}}/{{release}}"
    from_ = "here" if who == "here" else "host"
    with_check(lab, url=url, text="releases/{release}", timeout="20s", **{"from": from_})
    done = lab.push(site)
    assert done.code == 0, done.hosts
    assert [path for path, _ in shop.asked] == [f"/200/h01/shop/{done.release}"] * 3
    agent = {"here": "Python-urllib", "curl": "curl", "wget": "Wget", "busybox wget": "Wget"}[who]
    assert {each for _, each in shop.asked} == {agent}
    assert "check:ok" in done.phases("h01")


@pytest.mark.hosts(3)
@pytest.mark.parametrize("from_", ["here", "host"])
def test_a_text_of_several_lines_is_one_text(lab: Lab, site: Path, shop: Shop, from_: str) -> None:
    """Not a choice of several, as grep would take it."""
    with_check(lab, url=f"{shop.url}/lines", text="one\ntwo $(three) *\nfo", **{"from": from_})
    assert lab.push(site, "--limit", "h01").code == 0
    make_site(site, "two")
    with_check(lab, url=f"{shop.url}/lines", text="one\nfour", **{"from": from_})
    failed = reverted(lab, site, "--limit", "h01")
    assert failed.failure("h01")[:2] == ("check", 41)
    assert "the answer does not hold 'one\\nfour'" in failed.failure("h01")[2]


@pytest.mark.parametrize("from_", ["here", "host"])
def test_a_redirect_is_followed_unless_it_is_expected(lab: Lab, site: Path, shop: Shop, from_: str) -> None:
    with_check(lab, url=f"{shop.url}/302/{{host}}", **{"from": from_})
    assert lab.push(site, "--limit", "h01").code == 0
    assert len(shop.asked) == 2
    shop.asked.clear()
    with_check(lab, url=f"{shop.url}/302/{{host}}", expect=302, **{"from": from_})
    assert lab.push(site, "--limit", "h02").code == 0
    assert len(shop.asked) == 1


def reverted(lab: Lab, site: Path, *arguments: str) -> Pushed:
    failed = lab.push(site, *arguments)
    assert (failed.code, failed.outcome) == (21, "reverted")
    return failed


@pytest.mark.hosts(3)
def test_a_failing_check_reverts_the_fleet_and_reloads_it(
    lab: Lab, site: Path, shop: Shop, diary: Diary
) -> None:
    old = lab.push(site).release
    make_site(site, "two")
    hooks(
        lab,
        diary.hooks("activated"),
        check={"run": '[ "$DEPLOYCTL_HOST" = h01 ] || { echo down; exit 3; }', "timeout": "1s"},
    )
    failed = reverted(lab, site)
    phase, code, message = failed.failure("h02")
    assert (phase, code) == ("check", 41)
    assert message.endswith("was not content within 1 s: status 3: down")
    assert failed.states == {"h01": "reverted", "h02": "failed"}
    assert lab.live == lab.serves(old)
    assert sorted(line[1] for line in diary.lines if line[2] == old) == ["h01", "h02"]


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ({"url": "/404/{host}"}, "status 404, not 200"),
        ({"url": "/200/{host}", "expect": 204}, "status 200, not 204"),
        ({"url": "/200/nobody", "text": "{release}"}, "the answer does not hold"),
        ({"url": "/404/{host}", "from": "host"}, "status 404, not 200"),
        ({"url": "/200/nobody", "text": "{release}", "from": "host"}, "the answer does not hold"),
        ({"url": "/drip/"}, "no answer within"),
        ({"url": "/drip/", "from": "host"}, ""),
        ({"url": "/garbage/"}, ""),
        ({"run": "sleep 60"}, "no end within"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_was_wrong_is_said(
    make_lab: MakeLab, site: Path, shop: Shop, check: dict[str, Any], said: str
) -> None:
    lab = make_lab(1)
    if "url" in check:
        check = {**check, "url": shop.url + check["url"]}
    with_check(lab, **{**check, "timeout": "600ms"})
    failed = reverted(lab, site)
    phase, code, message = failed.failure("h01")
    assert (phase, code) == ("check", 41), message
    assert said in message
    assert lab.live == lab.everywhere(None)
    lab.assert_idle()


def test_nobody_who_can_ask_from_the_host(make_lab: MakeLab, site: Path, shop: Shop, tmp_path: Path) -> None:
    lab = make_lab(1, path=without(tmp_path, "curl", "wget"))
    with_check(lab, url=f"{shop.url}/200/", **{"from": "host"})
    failed = reverted(lab, site)
    assert failed.failure("h01")[:2] == ("check", 30)
    assert "curl and wget" in failed.failure("h01")[2]


def test_a_command_runs_in_the_release_with_its_environment(lab: Lab, site: Path, tmp_path: Path) -> None:
    run = f"[ -e {tmp_path}/tried-$DEPLOYCTL_HOST ] && pwd >{tmp_path}/$DEPLOYCTL_HOST || {{ touch {tmp_path}/tried-$DEPLOYCTL_HOST; exit 1; }}"
    with_check(lab, run=run, timeout="20s")
    done = lab.push(site)
    assert done.code == 0
    for place in lab:
        assert (tmp_path / place.name).read_text().strip() == f"{place.root}/releases/{done.release}"
