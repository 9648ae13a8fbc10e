"""Check the PNG files of plots."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path


def png_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG; fails if a chunk is damaged."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    place, kinds, size = 8, [], (0, 0)
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunk = content[place + 4 : place + 8 + length]
        assert struct.unpack(">I", content[place + 8 + length : place + 12 + length])[0] == zlib.crc32(chunk)
        kinds.append(chunk[:4])
        if chunk[:4] == b"IHDR":
            width, height = struct.unpack(">II", chunk[4:12])
            size = width, height
        place += 12 + length
    assert kinds[0] == b"IHDR" and kinds[-1] == b"IEND" and b"IDAT" in kinds
    return size
