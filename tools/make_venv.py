"""Make a virtual environment with this project in it, on a machine that has nothing but Python.

    python3 tools/make_venv.py DIRECTORY [EXTRA]

Debian and Ubuntu ship Python without what `venv` needs; where we may, that is installed, else it is said.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(directory: Path, extra: str) -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - this runs before the project's own requirement is read
        sys.exit(f"deployctl needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}")
    if not (directory / "bin" / "python").exists() and not make(directory):
        install_venv_package()
        if not make(directory):
            sys.exit(
                "python3 -m venv does not work here; on Debian or Ubuntu: sudo apt-get install python3-venv"
            )
    target = f"{ROOT}[{extra}]" if extra else str(ROOT)
    run(
        [
            str(directory / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-e",
            target,
        ]
    )


def make(directory: Path) -> bool:
    done = subprocess.run([sys.executable, "-m", "venv", str(directory)], check=False, capture_output=True)
    if done.returncode != 0:
        shutil.rmtree(directory, ignore_errors=True)
    return done.returncode == 0


def install_venv_package() -> None:
    if shutil.which("apt-get") is None:
        return
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    sudo = [] if os.getuid() == 0 else ["sudo", "-n"]
    if sudo and shutil.which("sudo") is None:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([*sudo, "apt-get", "update", "-qq"], check=False, env=environment)
    subprocess.run(
        [*sudo, "apt-get", "install", "-y", "-qq", name, "python3-venv"], check=False, env=environment
    )


def run(command: list[str]) -> None:
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        sys.exit(f"failed with status {done.returncode}: {' '.join(command)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
