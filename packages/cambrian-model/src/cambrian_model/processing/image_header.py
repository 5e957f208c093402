"""The size of an ordinary JPEG or PNG, read from its header without a library; anything unusual is left to Pillow.

Unusual is whatever may turn the picture (EXIF, XMP), so a PNG is followed to its end, from chunk to chunk, for those
may stand behind the pixels. Nothing is decoded: looking up the orientation with Pillow would decode every PNG.
"""

import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

_FIRST_BYTES = 1024  # hold the whole header of most files
_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # of bits, by PNG's color type
_SKIPPED_CHUNKS = frozenset(
    (
        b"PLTE",
        b"tRNS",
        b"gAMA",
        b"cHRM",
        b"sRGB",
        b"iCCP",
        b"sBIT",
        b"bKGD",
        b"hIST",
        b"pHYs",
        b"tIME",
        b"tEXt",
        b"IDAT",
    )
)
_TURNING_TEXTS = (b"exif\0", b"xmp\0", b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_FRAMES = (0xC0, 0xC1, 0xC2)
_SCAN, _APP_1, _APP_2 = 0xDA, 0xE1, 0xE2
_SKIPPED_SEGMENTS = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))) - {_APP_1}
_SEGMENT, _FRAME = struct.Struct(">BBH").unpack_from, struct.Struct(">BHHB").unpack_from

Read = Callable[[int, int], bytes]  # so many bytes from a place on


def header_size(source: str | Path | bytes) -> tuple[int, int] | None:
    """Returns the (height, width) of a picture as it is seen, or None where its header does not tell it simply."""
    if isinstance(source, bytes):
        return _size(lambda count, place: source[place : place + count], source)
    try:
        file = os.open(source, os.O_RDONLY)
        try:
            return _size(partial(os.pread, file), file)
        finally:
            os.close(file)
    except (OSError, ValueError):
        return None


def _size(read: Read, file: int | bytes) -> tuple[int, int] | None:
    start = read(_FIRST_BYTES, 0)
    try:
        if start.startswith(b"\xff\xd8\xff"):
            return _jpeg_size(start, read)
        file_size = len(file) if isinstance(file, bytes) else os.fstat(file).st_size
        if start.startswith(_PNG) and _is_upright_png(start, read, file_size):
            width, height, depth, color = struct.unpack_from(">IIBB", start, 16)
            return (height, width) if depth in _DEPTHS.get(color, ()) else None
    except (struct.error, IndexError):  # the file ends too early
        pass
    return None


def _is_upright_png(start: bytes, read: Read, file_size: int) -> bool:
    """Whether all chunks, up to the end, are of known kinds and none of them can turn the picture."""
    if zlib.crc32(start[12:29]) != struct.unpack_from(">I", start, 29)[0]:
        return False
    place, is_first_data = 33, True
    while True:
        chunk = start[place : place + 32] if place + 32 <= len(start) else read(32, place)
        length, kind = struct.unpack_from(">I4s", chunk)
        if kind == b"IEND":
            return True
        if kind not in _SKIPPED_CHUNKS or (kind == b"tEXt" and chunk.startswith(_TURNING_TEXTS, 8)):
            return False
        place += length + 12
        if kind == b"IDAT" and is_first_data:
            is_first_data = False
            place += _run_of_data(chunk[:8], length + 12, place, read, file_size)


def _run_of_data(header: bytes, stride: int, place: int, read: Read, file_size: int) -> int:
    """Returns how far the data chunks from `place` on can be passed over at once.

    They stand together in a file and mostly have one length, but the last: so where the last but one should be, there
    it is, or else they are followed one by one.
    """
    last = (file_size - place) // stride - 1
    return last * stride if last > 0 and read(8, place + last * stride) == header else 0


def _jpeg_size(start: bytes, read: Read) -> tuple[int, int] | None:
    """Follows the segments up to the first scan."""
    place, size = 2, None
    while True:
        segment, offset = (start, place) if place + 10 <= len(start) else (read(10, place), 0)
        first, marker, length = _SEGMENT(segment, offset)
        if first != 0xFF:
            return None
        if marker == _SCAN:
            return size
        if marker in _FRAMES:
            bits, height, width, layers = _FRAME(segment, offset + 4)
            if size is not None or bits != 8 or layers not in (1, 3, 4):
                return None
            size = height, width
        elif marker not in _SKIPPED_SEGMENTS or (marker == _APP_2 and segment[offset + 4 : offset + 8] == b"MPF\0"):
            return None
        place += length + 2
