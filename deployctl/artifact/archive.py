"""An archive file as a directory: which format it is, how much it may hold, and what is wrong with it.

Owns the choice of the reader and the words for damage; refuses to know a format itself.
"""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
import zlib
from pathlib import Path

import zstandard

from deployctl.artifact.tarsource import unpack_tar
from deployctl.artifact.unpack import Unpacker
from deployctl.artifact.zipsource import unpack_zip
from deployctl.errors import SourceError

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip")

# Above this an archive has to unpack to less than so many times its size: what people deploy is below 30.
_BOMB_FLOOR_BYTES = 1024**3
_BOMB_RATIO = 200

_DAMAGE = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zstandard.ZstdError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a method of compression that zipfile does not know
    ValueError,
    OverflowError,
)


def is_archive(path: Path) -> bool:
    """Whether the name says that it is one of the archives that are unpacked; a directory never is."""
    return path.name.lower().endswith(ENDINGS) and path.is_file()


def unpack_archive(archive: Path, into: Path) -> None:
    """Unpack the archive into an empty directory; SourceError for all that is damaged, unsafe or too large."""
    try:
        status = archive.stat()
        limit_bytes = max(_BOMB_FLOOR_BYTES, _BOMB_RATIO * status.st_size)
        unpacker = Unpacker(into, default_time_s=int(status.st_mtime), limit_bytes=limit_bytes)
        unpack = unpack_zip if archive.name.lower().endswith(".zip") else unpack_tar
        unpack(archive, unpacker)
        unpacker.finish()
    except SourceError as error:
        raise SourceError([f"{archive}: {problem}" for problem in error.problems], hint=error.hint) from None
    except _DAMAGE as error:
        raise SourceError(
            f"{archive}: damaged, or not such an archive: {str(error) or type(error).__name__}"
        ) from None
    except OSError as error:
        raise SourceError(f"{archive}: cannot be read: {error.strerror or error}") from None
