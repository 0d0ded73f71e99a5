"""A fleet with a past: trees that were released one after the other, and ways to spoil what lies on a host."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.release.lab import Lab
from tests.release.running import Pushed
from tests.release.trees import make_site


def busybox_tools(directory: Path) -> Path:
    """Make a directory that can stand for PATH on a busybox host: its applets, and an scp; skips without busybox."""
    program = shutil.which("busybox")
    if program is None:
        pytest.skip("busybox is missing")
    directory.mkdir()
    applets = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        (directory / applet).symlink_to(program)
    (directory / "scp").symlink_to(shutil.which("scp") or "/usr/bin/scp")
    return directory


@dataclass
class Story:
    """A lab and the one tree that changes between its releases."""

    lab: Lab
    site: Path

    def tree(self, text: str) -> Path:
        return make_site(self.site, text)

    def push(self, text: str, *arguments: str) -> Pushed:
        """Release the tree that says `text`."""
        return self.lab.push(self.tree(text), *arguments)

    def releases(self, *texts: str) -> list[str]:
        """Release these trees everywhere and return their ids."""
        done = [self.push(text, "--message", f"release {text}") for text in texts]
        assert [each.code for each in done] == [0] * len(texts), done[-1].stderr
        return [each.release for each in done]

    def stage(self, text: str) -> str:
        staged = self.push(text, "--no-activate")
        assert staged.outcome == "staged"
        return staged.release

    def rollback(self, *arguments: str) -> Pushed:
        return self.run("rollback", *arguments)

    def run(self, command: str, *arguments: str) -> Pushed:
        return self.lab.start(command, *arguments).finish()

    def configure(self, **release: Any) -> None:
        """Set keys below `release` in the inventory."""
        data = yaml.safe_load(self.lab.inventory.read_text())
        data["release"] = {**data.get("release", {}), **release}
        self.lab.inventory.write_text(yaml.safe_dump(data, sort_keys=False))

    def set_vars(self, **variables: Any) -> None:
        """Set variables of every host in the inventory."""
        data = yaml.safe_load(self.lab.inventory.read_text())
        data["groups"]["web"]["vars"] = variables
        self.lab.inventory.write_text(yaml.safe_dump(data, sort_keys=False))

    def forget(self, name: str) -> None:
        """Put an empty disk into a host."""
        root = self.lab[name].root
        shutil.rmtree(root)
        root.mkdir()

    def remove(self, name: str, release: str) -> None:
        shutil.rmtree(self.lab[name].root / "releases" / release)

    def alter(self, name: str, release: str, damage: str) -> None:
        """Spoil a release on one host's disk."""
        root = self.lab[name].root
        top = root / "releases" / release
        match damage:
            case "byte":
                file = top / "index.html"
                times = file.stat()
                file.write_bytes(file.read_bytes().replace(b"<p>", b"<P>"))
                os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
            case "missing":
                (top / "index.html").unlink()
            case "mode":
                (top / "app/run.sh").chmod(0o700)
            case "link":
                (top / "link").unlink()
                (top / "link").symlink_to("index.html")
            case "manifest":
                with (root / ".deployctl/manifests" / release).open("a") as manifest:
                    manifest.write(f"f 0644 0 {'0' * 64} zzz\n")
            case "extra":
                (top / "extra").write_text("extra")
            case _:
                raise ValueError(damage)
