"""A small web shop to release: a WSGI application of the standard library alone, in three versions.

Owns the tree; refuses to know how it gets anywhere. The same version is the same bytes on every machine.

    bin/serve          starts it: `bin/serve [PORT]`; `/healthz` answers `ok VERSION`
    shop/              the application
    templates/ static/ data/
    static/img/logo.svg -> logo-vN.svg
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from deployctl.demo.app.images import leaf_png, logo_svg

_SOURCE = Path(__file__).parent / "source"
_COLOURS = {1: "#2f6f4f", 2: "#235a97", 3: "#8a3b6b"}
_NAMES = (
    "Basil", "Chives", "Dill", "Fennel", "Lovage", "Marjoram", "Mint", "Oregano", "Parsley", "Rosemary", "Sage",
    "Sorrel", "Tarragon", "Thyme",
)  # fmt: skip

VERSIONS = tuple(_COLOURS)


def write_app(directory: Path, version: int) -> None:
    """Make `directory` the application in `version` (1, 2 or 3), over an earlier version if there is one.

    Each version changes some files, adds some and removes some. Files that are not the application's are left alone.
    """
    tree = _tree(version)
    for other in VERSIONS:
        for path in _tree(other).keys() - tree.keys():
            (directory / path).unlink(missing_ok=True)
    for path, content in tree.items():
        _write(directory / path, content)
    (directory / "bin/serve").chmod(0o755)
    link = directory / "static/img/logo.svg"
    link.unlink(missing_ok=True)
    link.symlink_to(f"logo-v{version}.svg")


def remove_app(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def _write(file: Path, content: bytes) -> None:
    """Leave a file with the right bytes alone: its time stays, as after a build that changed little."""
    if file.is_file() and file.read_bytes() == content:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(0o644)


def _tree(version: int) -> dict[str, bytes]:
    """Paths and contents; the link and the executable bit are `write_app`'s."""
    tree = {
        file.relative_to(_SOURCE).as_posix().removesuffix(".txt"): file.read_bytes()
        for file in sorted(_SOURCE.rglob("*.txt"))
    }
    plants = _NAMES[: 10 + 2 * (version - 1)]
    for number, name in enumerate(plants):
        tree[f"static/img/{name.lower()}.png"] = leaf_png(number)
    catalogue = [
        {"name": name, "image": f"{name.lower()}.png", "cents": 190 + 35 * number + 10 * (version > 1)}
        for number, name in enumerate(plants)
    ]
    tree["data/catalogue.json"] = (json.dumps(catalogue, indent=1) + "\n").encode()
    tree["static/css/colours.css"] = f":root {{ --accent: {_COLOURS[version]}; }}\n".encode()
    tree[f"static/img/logo-v{version}.svg"] = logo_svg(_COLOURS[version])
    tree["VERSION"] = f"{version}\n".encode()
    if version < 2:
        tree.pop("templates/offers.html")
    if version > 2:
        tree.pop("static/css/print.css")
    return tree
