"""The format and the size of an encoded image by its header: a few bytes, however large the image is."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

Read = Callable[[int, int], bytes]  # (start, count) -> bytes, fewer at the image's end

# How the images begin that some OpenCV decodes from memory. Which of them Caffe's does, its build
# decides.
_FORMATS = re.compile(
    rb"""\xff\xd8\xff                                   # JPEG
    | \x89PNG\r\n\x1a\n
    | BM
    | P[1-7]\s | P[Ff]\s                              # PBM, PGM, PPM, PAM, PFM
    | II[*+]\0 | MM\0[*+]                             # TIFF
    | RIFF.{4}WEBP
    | \0\0\0\x0cjP\ \ | \xff\x4f\xff\x51              # JPEG 2000
    | \x59\xa6\x6a\x95                                # Sun raster
    | \#\?R(?:GBE|ADIANCE)                            # HDR
    | \x76\x2f\x31\x01                                # OpenEXR
    | GIF8
    | .{4}ftyp                                       # AVIF
    | \xff\x0a | \0\0\0\x0cJXL\                       # JPEG XL
    | .{128}DICM
    | NITF
    """,
    re.DOTALL | re.VERBOSE,
)
_LONGEST_SIGNATURE = 132
KNOWN_FORMATS = (
    "JPEG, PNG, BMP, PNM, TIFF, WebP, JPEG 2000, Sun raster"  # those with bytes for pixels
)
_PNM = re.compile(
    rb"P(?P<kind>[1-6])(?:\s|#[^\n]*\n)+(?P<width>\d{1,9})(?:\s|#[^\n]*\n)+(?P<height>\d{1,9})\s"
)
_PNM_CHANNELS = {b"1": 1, b"2": 1, b"3": 3, b"4": 1, b"5": 1, b"6": 3}
_PNM_HEADER = 512  # bytes that are looked at
_BMP_BITS = {24: 3}  # others have channels that depend on the palette or the decoder
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 6: 4}  # by colour type, as OpenCV decodes them
_JPEG_CHANNELS = {1: 1, 3: 3, 4: 3}  # by components: CMYK becomes BGR
_SIZES = frozenset(range(0xC0, 0xD0)) - {
    0xC4,
    0xC8,
    0xCC,
}  # markers of a JPEG with its size behind them
_ALONE = frozenset([0x01, *range(0xD0, 0xD9)])  # markers with nothing behind them
_SEGMENTS = 1000


@dataclass(frozen=True)
class ImageSize:
    """The size of a decoded image.

    Attributes:
        channels: 0 where they depend on the decoder.
        height, width: pixels.
        turned: whether it may be turned by its Exif data when it is decoded to a wanted number of
            channels.
    """

    channels: int
    height: int
    width: int
    turned: bool = False


def is_image(read: Read) -> bool:
    """Whether it begins like an image that OpenCV can decode in some build."""
    return _FORMATS.match(read(0, _LONGEST_SIGNATURE)) is not None


def image_size(read: Read) -> ImageSize | None:
    """The size of a JPEG, PNG, BMP or PNM image; None for another one, or where its header does not tell."""
    begin = read(0, 33)
    if begin.startswith(_PNG):
        return _png_size(read, begin)
    if begin.startswith(_JPEG):
        return _jpeg_size(read)
    if begin.startswith(b"BM"):
        return _bmp_size(begin)
    return _pnm_size(read(0, _PNM_HEADER)) if begin.startswith(b"P") else None


def _bmp_size(begin: bytes) -> ImageSize | None:
    if len(begin) < 30 or int.from_bytes(begin[14:18], "little") < 36:  # a header as OS/2 has it
        return None
    width, height, _, bits = struct.unpack_from("<iiHH", begin, 18)
    if width <= 0 or not height:
        return None
    return ImageSize(_BMP_BITS.get(bits, 0), abs(height), width)


def _pnm_size(begin: bytes) -> ImageSize | None:
    header = _PNM.match(begin)
    if header is None:
        return None
    width, height = int(header["width"]), int(header["height"])
    return ImageSize(_PNM_CHANNELS[header["kind"]], height, width) if width and height else None


def _png_size(read: Read, begin: bytes) -> ImageSize | None:
    if len(begin) < 33 or begin[12:16] != b"IHDR":
        return None
    width, height, _, colour = struct.unpack_from(">IIBB", begin, 16)
    if not width or not height:
        return None
    return ImageSize(0 if _has_transparency(read) else _PNG_CHANNELS.get(colour, 0), height, width)


def _has_transparency(read: Read) -> bool:
    """Whether a tRNS chunk precedes the pixels, which some versions of OpenCV make a channel of."""
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
