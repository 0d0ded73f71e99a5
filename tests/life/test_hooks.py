"""Hooks on hosts: when and where they run, what they are given, what becomes of their output."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.life.moments import Diary, configure, held_by, hooks, pid_in, spoken
from tests.release.conftest import MakeLab
from tests.release.lab import Lab
from tests.release.running import Pushed
from tests.release.trees import make_site
from tests.support.proc import everything, wait_until

pytestmark = pytest.mark.sshd


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    """Two servers: enough for one that fails and one that does not."""
    return make_lab(2)


TOKEN = "tok3n-with 'quotes' & <signs>"
PEM = "-----BEGIN KEY-----\nMIIBvAIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"
BIG_BYTES = int(os.environ.get("DEPLOYCTL_TEST_HOOK_BYTES", str(32 << 20)))


def logged(done: Pushed, host: str | None, stream: str | None = None) -> list[str]:
    return [
        event["text"]
        for event in done.events
        if event["event"] == "log" and event["host"] == host and stream in {None, event["stream"]}
    ]


def test_every_moment_in_its_order_with_what_is_served_then(lab: Lab, site: Path, diary: Diary) -> None:
    hooks(lab, diary.hooks())
    one = lab.push(site)
    new = one.release
    for host in lab.names:
        assert [line for line in diary.lines if line[1] == host] == [
            ["staged", host, new, "nothing"],
            ["activating", host, new, "nothing"],
            ["activated", host, new, new],
        ]
    first_activating = next(i for i, line in enumerate(diary.lines) if line[0] == "activating")
    assert {line[0] for line in diary.lines[:first_activating]} == {"staged"}
    assert len([line for line in diary.lines[:first_activating] if line[0] == "staged"]) == len(lab.names)
    diary.clear()
    assert lab.push(site).outcome == "unchanged"
    assert diary.lines == []


@pytest.mark.hosts(3)
def test_environment_directory_and_standard_input(lab: Lab, site: Path, tmp_path: Path) -> None:
    def told(moment: str) -> str:
        out = f"{tmp_path}/{moment}-${{DEPLOYCTL_HOST:-here}}"
        return f'(env | grep -E "^(DEPLOYCTL_[A-Z_]+|PHP_ENV|ODD|API_TOKEN)=" | grep -v ^DEPLOYCTL_TEST; pwd; cat) >"{out}"'

    moments = ("staged", "activating", "activated", "released")
    configure(
        lab, vars={"PHP_ENV": "production", "ODD": "a 'b' $c\\", "API_TOKEN": {"env": "T", "secret": True}}
    )
    hooks(lab, {moment: [told(moment)] for moment in moments})
    env = {"T": TOKEN}
    first = lab.push(site, env=env)
    make_site(site, "two")
    done = lab.push(site, env=env)
    assert done.code == first.code == 0
    for moment in moments[:3]:
        for place in lab:
            *given, directory = (tmp_path / f"{moment}-{place.name}").read_text().splitlines()
            release = f"{place.root}/releases/{done.release}"
            assert sorted(given) == sorted([
                f"API_TOKEN={TOKEN}",
                "DEPLOYCTL_APP=shop",
                f"DEPLOYCTL_CURRENT_PATH={place.root}/current",
                f"DEPLOYCTL_HOST={place.name}",
                f"DEPLOYCTL_PREVIOUS_RELEASE={first.release}",
                f"DEPLOYCTL_RELEASE={done.release}",
                f"DEPLOYCTL_RELEASE_PATH={release}",
                "ODD=a 'b' $c\\",
                "PHP_ENV=production",
            ])  # fmt: skip
            assert directory == release
    *given, directory = (tmp_path / "released-here").read_text().splitlines()
    assert {"DEPLOYCTL_APP=shop", f"DEPLOYCTL_RELEASE={done.release}"} <= set(given)
    assert directory == str(lab.inventory.parent)


def test_once_and_groups(make_lab: MakeLab, site: Path, diary: Diary) -> None:
    lab = make_lab(3)
    configure(lab, groups={"web": ["h01", "h02"], "jobs": ["h03", "h02"]})
    hooks(
        lab,
        {
            "staged": [{"run": diary.line("once"), "once": True}],
            "activating": [{"run": diary.line("jobs"), "groups": ["jobs"]}],
            "activated": [
                {"run": diary.line("jobs-once"), "groups": ["jobs"], "once": True},
                {"run": diary.line("batched-once"), "once": True},
            ],
        },
    )
    assert lab.push(site, "--batch", "1").code == 0
    assert sorted((moment, host) for moment, host, *_ in diary.lines) == [
        ("batched-once", "h01"),
        ("jobs", "h02"),
        ("jobs", "h03"),
        ("jobs-once", "h02"),
        ("once", "h01"),
    ]


def test_output_comes_line_by_line_with_the_name_of_its_host(lab: Lab, site: Path, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hooks(
        lab,
        {
            "staged": [
                {
                    "run": f"echo out; echo err >&2; {held_by(hold)}; printf 'no end'; printf 'err end' >&2",
                    "once": True,
                },
                r"printf 'a\0b\377\033[31mred\rx\n\n\n\n\nlast\n'",
            ]
        },
    )
    running = lab.start("push", site)
    running.wait_for(lambda e: e["event"] == "log" and e["text"] == "out")  # before the hook has ended
    event = running.wait_for(lambda e: e["event"] == "log" and e["text"] == "err")
    assert (event["host"], event["phase"]) == ("h01", "stage")
    wait_until(hold.exists, what="the hook's stop")
    hold.unlink()
    done = running.finish()
    assert done.code == 0
    assert logged(done, "h01", "stderr") == ["err", "err end"]
    assert logged(done, "h01", "stdout")[:2] == ["out", "no end"]
    *_, odd, _, _, last = logged(done, "h02")
    assert last == "last"
    assert odd.isprintable()
    assert re.fullmatch(r"a<00>b\ufffd<1b>\[31mred<0d>x", odd)
    assert logged(done, "h02", "stderr") == []
    code, said = spoken(lab, "push", make_site(site, "two"), "-o", "plain", env={})
    assert code == 0, said
    assert re.search(r"h02.* last", said)


@pytest.mark.parametrize("what", ["without a newline", "of short lines", "on standard error"])
def test_any_amount_of_output_costs_bounded_memory(
    make_lab: MakeLab, site: Path, tmp_path: Path, what: str
) -> None:
    """A gigabyte with DEPLOYCTL_TEST_HOOK_BYTES=1073741824; the peak of the worker's memory is read from the kernel."""
    lab = make_lab(1)
    hold, size = tmp_path / "hold", BIG_BYTES
    flood = {
        "without a newline": rf"head -c {size} /dev/zero | tr '\0' '\377'",
        "of short lines": f"yes | head -c {size}",
        "on standard error": f"head -c {size} /dev/zero >&2",
    }[what]
    hooks(
        lab, {"staged": [f"{flood}; echo; echo the end; (echo; echo the end) >&2; {held_by(hold)}; exit 9"]}
    )
    running = lab.start("push", site)
    running.wait_for_host("h01", "stage", "ok")
    worker = running.worker_of(lab["h01"].port)
    before_kib = peak_kib(worker.pid)
    wait_until(lambda: Path(f"{hold}.here").exists(), 110, "the end of the flood")
    assert peak_kib(worker.pid) - before_kib < 16 << 10
    hold.unlink()
    done = running.finish()
    assert done.code == 20
    [failure] = [event for event in done.of("h01") if event["state"] == "failed"]
    assert "the end" in failure["data"]["tail"]
    assert sum(len(line) for line in failure["data"]["tail"]) < 100_000
    assert sum(len(text) for text in logged(done, "h01")) < 600_000
    assert any("the rest is not shown" in text for text in logged(done, "h01"))


def peak_kib(pid: int) -> int:
    [line] = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1])


@pytest.mark.hosts(3)
def test_secrets_are_nowhere(lab: Lab, site: Path, tmp_path: Path) -> None:
    """Printed on both streams, in a failure, in pieces of a long line, several lines long; shown to `ps`."""
    hold = tmp_path / "hold"
    secrets = {"API_TOKEN": {"env": "T", "secret": True}, "PEM": {"env": "P", "secret": True}}
    configure(lab, groups={"web": lab.names}, vars=secrets)
    long_line = (
        "head -c 4090 /dev/zero | tr '\\0' x; printf '%s' \"$API_TOKEN\"; head -c 9000 /dev/zero | tr '\\0' y"
    )
    hooks(
        lab,
        {
            "staged": [
                {"run": f"{held_by(hold)}; {long_line}", "once": True},
                'echo "$PEM"; echo "t=$API_TOKEN" >&2',
            ],
            "activated": ['echo "$API_TOKEN"; exit 1'],
        },
        check={"run": 'echo "$API_TOKEN"; exit 1', "timeout": "1s"},
    )
    env = {"T": TOKEN, "P": PEM}
    running = lab.start("push", site, "-vv", "--debug", env=env)
    wait_until(lambda: Path(f"{hold}.here").exists(), 20, "the hook")
    for process in everything():
        assert TOKEN.encode() not in arguments(process.pid)
    hold.unlink()
    done = running.finish()
    assert (done.code, done.outcome) == (21, "reverted")
    said = str(done.events) + done.stderr
    for arguments_ in (("-o", "plain", "-vv", "--debug"), ("-o", "plain")):
        code, text = spoken(lab, "push", site, *arguments_, env=env)
        assert code == 21
        said += text
    assert "t=***" in said
    for secret in (TOKEN, repr(TOKEN)[1:-1], TOKEN[:12], "MIIBvAIBADANBgkq", "hkiG9w0BAQEFAASC"):
        assert secret not in said
    for place in lab:
        assert TOKEN not in "".join(
            path.read_text()
            for path in (place.root / ".deployctl").rglob("*")
            if path.is_file() and path.suffix != ".zst"
        )


def arguments(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_daemon_that_a_hook_starts_holds_nothing_up_and_lives_on(
    make_lab: MakeLab, site: Path, tmp_path: Path
) -> None:
    lab = make_lab(1)
    hooks(lab, {"activated": [f"sleep 300 & echo $! >{tmp_path}/pid; echo started"]})
    done = lab.push(site)
    assert (done.code, done.seconds < 20) == (0, True)
    assert logged(done, "h01") == ["started"]
    assert Path(f"/proc/{pid_in(tmp_path / 'pid')}/cmdline").read_bytes().startswith(b"sleep")
