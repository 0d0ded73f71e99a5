"""What a host's tools can do beyond POSIX is found by trying them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from deployctl.host.script import Script, functions_of
from tests.release.test_userland import busybox_tools


def able(what: str, **environ: str) -> bool:
    text = functions_of(Script.build("probe", {}, run="r", root="/").parts)
    script = f"{text}\nD_ABLE=\nable {what} && able {what}; said=$?\necho $D_ABLE\nexit $said\n"
    ran = subprocess.run(["/bin/sh"], input=script, capture_output=True, text=True, check=False, env=environ)
    assert ran.stdout.split() == [what if ran.returncode == 0 else f"no-{what}"]
    return ran.returncode == 0


PATH = "/usr/bin:/bin"


@pytest.mark.parametrize(("tool", "what"), [("tar", "blocks"), ("find", "print")])
def test_gnu_tools_can(tool: str, what: str) -> None:
    said = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False).stdout
    if "GNU" not in said:
        pytest.skip(f"{tool} is not GNU's here")
    assert able(what, PATH=PATH)


def test_openssl_can_hash_or_is_not_there() -> None:
    assert able("openssl", PATH=PATH) == (shutil.which("openssl", path=PATH) is not None)


@pytest.mark.parametrize("what", ["blocks", "print", "openssl"])
def test_busybox_can_not(tmp_path: Path, what: str) -> None:
    assert not able(what, PATH=str(busybox_tools(tmp_path / "tools")))
