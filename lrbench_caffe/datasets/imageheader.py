"""The size of an encoded image by its header: a few bytes, however large the image is."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

Read = Callable[[int, int], bytes]  # (start, count) -> bytes, fewer at the image's end

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 6: 4}  # by colour type, as OpenCV decodes them
_JPEG_CHANNELS = {1: 1, 3: 3, 4: 3}  # by components: CMYK becomes BGR
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a JPEG with its size behind them
_ALONE = frozenset([0x01, *range(0xD0, 0xD9)])  # markers with nothing behind them
_SEGMENTS = 1000


@dataclass(frozen=True)
class ImageSize:
    """The size of a decoded image.

    Attributes:
        channels: 0 where they depend on the decoder.
        height, width: pixels.
        turned: whether it may be turned by its Exif data when it is decoded to a wanted number of channels.
    """

    channels: int
    height: int
    width: int
    turned: bool = False


def image_size(read: Read) -> ImageSize | None:
    """The size of a JPEG or PNG image; None for another format, or where its header does not tell."""
    begin = read(0, 33)
    if begin.startswith(_PNG):
        return _png_size(read, begin)
    return _jpeg_size(read) if begin.startswith(_JPEG) else None


def _png_size(read: Read, begin: bytes) -> ImageSize | None:
    if len(begin) < 33 or begin[12:16] != b"IHDR":
        return None
    width, height, _, colour = struct.unpack_from(">IIBB", begin, 16)
    if not width or not height:
        return None
    return ImageSize(0 if _has_transparency(read) else _PNG_CHANNELS.get(colour, 0), height, width)


def _has_transparency(read: Read) -> bool:
    """Whether a tRNS chunk stands before the pixels, which some versions of OpenCV make a channel of."""
    position = len(_PNG)
    for _ in range(_SEGMENTS):
        head = read(position, 8)
        if len(head) < 8 or head[4:] == b"IDAT":
            return False
        if head[4:] == b"tRNS":
            return True
        position += 12 + int.from_bytes(head[:4], "big")
    return True


def _jpeg_size(read: Read) -> ImageSize | None:
    position, turned = len(_JPEG), False
    for _ in range(_SEGMENTS):
        head = read(position, 10)
        if len(head) < 4 or head[0] != 0xFF:
            return None
        marker = head[1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in _ALONE:
            position += 2
        elif marker in _SIZES:
            size = read(position + 4, 6)
            if len(size) < 6:
                return None
            _, height, width, components = struct.unpack(">BHHB", size)
            if not height or not width:
                return None
            return ImageSize(_JPEG_CHANNELS.get(components, 0), height, width, turned)
        else:
            turned = turned or (marker == 0xE1 and head[4:8] == b"Exif")
            position += 2 + int.from_bytes(head[2:4], "big")
    return None
