"""A source tree to a manifest and packed bytes.

    open_source -> walk -> pack -> transcode

SOURCE becomes a directory or file, then a list of entries, then one archive with its manifest, then the same in
another codec. Everything here that fails because of SOURCE or of the local disk raises `SourceError`.
"""

from deployctl.artifact.local import work_dir
from deployctl.artifact.manifest import Entry, Manifest, escape, shape_digest, shape_lines, unescape
from deployctl.artifact.pack import Artifact, Packed, pack
from deployctl.artifact.walk import Walked, walk

__all__ = [
    "Artifact",
    "Entry",
    "Manifest",
    "Packed",
    "Walked",
    "escape",
    "pack",
    "shape_digest",
    "shape_lines",
    "unescape",
    "walk",
    "work_dir",
]
