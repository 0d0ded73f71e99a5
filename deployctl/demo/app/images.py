"""Pictures computed from a number: the same bytes everywhere, and as hard to compress as photographs.

Owns PNG and SVG as far as the demo needs them.
"""

from __future__ import annotations

import functools
import hashlib
import struct
import zlib

_SIDE = 160


@functools.cache
def leaf_png(number: int) -> bytes:
    """A square picture of a leaf on a grainy ground; another one for each number."""
    grain = hashlib.shake_256(bytes((number,))).digest(_SIDE * _SIDE)
    width = 0.28 + 0.03 * (number % 5)
    red, green, ribs = 50 + (number * 23) % 70, 120 + (number * 7) % 40, 6 + number % 3
    rows = bytearray()
    for y in range(_SIDE):
        rows.append(0)  # no filter
        v = y / _SIDE - 0.5
        for x, noise in enumerate(grain[y * _SIDE : (y + 1) * _SIDE]):
            u = abs(x / _SIDE - 0.5)
            noise >>= 4  # noqa: PLW2901 - shades, not bytes
            if (u / width) ** 2 + (v / 0.45) ** 2 >= 1 - 0.4 * u:
                rows += bytes((232 + noise, 228 + noise, 216 + noise))
            elif u < 0.012 or -0.05 < (v * 8 + u * ribs) % 1 - 0.5 < 0.05:
                rows += bytes((red + noise, 170 + noise, 60 + noise))
            else:
                rows += bytes((red + noise, green + noise, 60 + noise))
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    # Stored, not deflated: compressed bytes differ between versions of zlib.
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(rows), 0)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def logo_svg(colour: str) -> bytes:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" role="img" aria-label="Herb shop">\n'
        f'  <circle cx="32" cy="32" r="30" fill="{colour}"/>\n'
        '  <path d="M32 54 C10 40 14 16 32 10 C50 16 54 40 32 54 Z" fill="#fff" opacity=".9"/>\n'
        f'  <path d="M32 54 L32 20" stroke="{colour}" stroke-width="3"/>\n'
        "</svg>\n"
    ).encode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
