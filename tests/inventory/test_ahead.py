"""Reading the inventory in a process of its own: the same result, the same errors, and no process that stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deployctl.inventory import load_inventory

EXAMPLE = Path(__file__).parents[2] / "hosts.example.yaml"
READ = """
import os, signal, sys
from deployctl.errors import InventoryError
from deployctl.inventory.ahead import read_inventory
{before}
try:
    inventory = read_inventory(sys.argv[1], lambda: None)
    print(repr(inventory) == sys.argv[2] if len(sys.argv) > 2 else len(inventory.hosts))
except InventoryError as error:
    print(*error.problems, sep="\\n")
print("pydantic" in sys.modules)
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("alone")
"""


def read(path: str | Path, *more: str, before: str = "") -> list[str]:
    command = [sys.executable, "-c", READ.format(before=before), str(path), *more]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()


def test_what_is_read_elsewhere_is_the_same_and_costs_no_pydantic_here() -> None:
    assert read(EXAMPLE, repr(load_inventory(EXAMPLE))) == ["True", "False", "alone"]


def test_what_is_wrong_is_told_as_ever(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text("app: shop\npath: relative\n")
    *problems, _, alone = read(file)
    assert any("path" in problem for problem in problems)
    assert any("groups" in problem for problem in problems)
    assert alone == "alone"
    assert str(tmp_path / "none.yaml") in read(tmp_path / "none.yaml")[0]


@pytest.mark.parametrize(
    "before",
    [
        "import deployctl.inventory.ahead as a; a._read_and_tell = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
        "def fork(): raise BlockingIOError(11, 'no more')\nos.fork = fork",
        "import deployctl.inventory.ahead as a; a._read_and_tell = lambda _, end, *more: (os.write(end, b'half'), os._exit(0))",
    ],
)
def test_where_there_is_no_such_process_it_is_read_here(before: str) -> None:
    hosts = len(load_inventory(EXAMPLE).hosts)
    assert read(EXAMPLE, before=before) == [str(hosts), "True", "alone"]


def test_a_signal_meanwhile_leaves_no_process() -> None:
    before = """
import deployctl.inventory.ahead as a, time
a._read_and_tell = lambda *_: time.sleep(60)
signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InventoryError(["stopped"])))
signal.setitimer(signal.ITIMER_REAL, 0.2)
"""
    assert read(EXAMPLE, before=before) == ["stopped", "False", "alone"]
