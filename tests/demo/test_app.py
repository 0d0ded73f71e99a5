from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from deployctl.demo.app import VERSIONS, write_app


def entries(directory: Path) -> dict[str, str]:
    found = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file():
            found[name] = f"{path.stat().st_mode & 0o777:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return found


def test_versions_differ_in_few_files_and_are_the_same_however_one_gets_there(tmp_path: Path) -> None:
    fresh = {}
    for version in VERSIONS:
        write_app(tmp_path / f"fresh{version}", version)
        fresh[version] = entries(tmp_path / f"fresh{version}")
        write_app(tmp_path / "one", version)
        assert entries(tmp_path / "one") == fresh[version]
        assert 25 <= len(fresh[version]) <= 60
        assert fresh[version]["static/img/logo.svg"] == f"link to logo-v{version}.svg"
        assert fresh[version]["bin/serve"].startswith("755 ")
    for old, new in ((1, 2), (2, 3)):
        before, after = fresh[old], fresh[new]
        assert before.keys() - after.keys()
        assert after.keys() - before.keys()
        changed = [name for name in before.keys() & after.keys() if before[name] != after[name]]
        assert 1 < len(changed) < 8
    assert "templates/offers.html" not in fresh[1]


def test_an_unchanged_file_keeps_its_time_and_a_foreign_one_its_place(tmp_path: Path) -> None:
    write_app(tmp_path, 1)
    (tmp_path / "mine").write_text("x")
    os.utime(tmp_path / "static/js/search.js", (1e9, 1e9))
    write_app(tmp_path, 2)
    assert (tmp_path / "static/js/search.js").stat().st_mtime == 1e9
    assert (tmp_path / "mine").exists()


def test_the_first_version_is_the_same_everywhere(tmp_path: Path) -> None:
    write_app(tmp_path, 1)
    pictures = (tmp_path / "static/img").glob("*.png")
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(pictures))).hexdigest()
    assert digest == "73d6cf5ae736d42b32ff7a4b3f4eb8b3fee01a68c06858f77fd4bb83783c71e6"


@pytest.mark.parametrize("version", VERSIONS)
def test_it_serves_its_pages(tmp_path: Path, version: int) -> None:
    write_app(tmp_path, version)
    server = subprocess.Popen(
        [str(tmp_path / "bin/serve"), "0"],
        env={**os.environ, "PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            assert get(f"{address}healthz") == f"ok {version}\n".encode()
            assert f"version {version}".encode() in get(address)
            assert b"Basil" in get(f"{address}plant/basil")
            assert get(f"{address}static/img/logo.svg").startswith(b"<svg")
            assert get(f"{address}static/img/basil.png").startswith(b"\x89PNG")
            assert (b"Offers" in get(f"{address}about")) == (version > 1)
        finally:
            server.terminate()


def get(address: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=10) as answer:
        content: bytes = answer.read()
    return content
