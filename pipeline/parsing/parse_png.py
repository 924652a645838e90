"""Parse PNGs: maps of labels (SCHP, LIP) and DensePose's I, U, V, as other tools wrote them.

What a PNG holds stands in its header, and by it is refused what labels or I, U, V are not written as: 16 bits read as 8
would be all background, and a grey picture's I, U and V one.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.base.body_parts import DENSEPOSE24
from pipeline.base.errors import InputError
from pipeline.base.images import decode_image, read_bytes

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_BYTES = 26
GREY, RGB, PALETTE = 0, 2, 3
COLOURS = {GREY: "grey", RGB: "RGB", PALETTE: "palette", 4: "grey and alpha", 6: "RGB and alpha"}


@dataclass(frozen=True)
class Header:
    """Pixels, bits a channel, and the kind of colours as PNG numbers them."""

    height: int
    width: int
    bits: int
    colour: int

    def __str__(self) -> str:
        return f"{COLOURS.get(self.colour, 'unknown colours')}, {self.bits} bits"


def png_header(data: bytes) -> Header:
    """The header in a PNG's first bytes. ValueError if it is none."""
    if len(data) < HEADER_BYTES or not data.startswith(SIGNATURE) or data[12:16] != b"IHDR":
        raise ValueError("is damaged or no PNG")
    return Header(int.from_bytes(data[20:24]), int.from_bytes(data[16:20]), data[24], data[25])


def read_header(path: str | os.PathLike) -> Header:
    """The header of a PNG file. InputError names the file."""
    try:
        with open(path, "rb") as file:
            return png_header(file.read(HEADER_BYTES))
    except OSError as error:
        raise InputError(f"{os.fspath(path)!r}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{os.fspath(path)!r}: {error}; make it again") from error


def no_labels(header: Header) -> str:
    """Why a PNG is no map of labels, or ""."""
    if header.colour not in (GREY, PALETTE):
        return (f"holds colours ({header}), not labels; write PNGs of one channel whose palette index or grey value is "
                "the label")
    if header.bits > 8:
        return f"has {header.bits} bits a pixel where a label has 8; write PNGs of 8 bits"
    return ""


def no_iuv(header: Header) -> str:
    """Why a PNG does not hold I, U, V, or ""."""
    if header.colour != RGB or header.bits != 8:
        return f"is {header} where I, U, V are three channels (RGB) of 8 bits; write them so"
    return ""


def read_label_png(path: Path) -> np.ndarray:
    """A label map (H, W) uint8: palette indices or grey values. InputError names the file."""
    data = read_bytes(path)
    try:
        header = png_header(data)
        if why := no_labels(header):
            raise InputError(f"{str(path)!r}: {why}")

        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            values = np.array(image)
    except InputError:
        raise
    except Exception as error:  # PIL raises many kinds on damaged files
        raise InputError(f"{str(path)!r}: is damaged or no PNG ({type(error).__name__}); make it again") from error

    if header.colour == GREY and values.dtype != bool:
        values //= 255 // (2 ** header.bits - 1)  # PIL spreads grey of 2 and 4 bits over 0 .. 255
    return values.astype(np.uint8)


def read_iuv(path: Path, *, red_first: bool) -> tuple[np.ndarray, np.ndarray]:
    """An IUV PNG -> labels (H, W) and u,v x 255 (H, W, 2), uint8. InputError names the file."""
    iuv = decode_iuv(read_bytes(path), path, red_first=red_first)
    return iuv[..., 0], iuv[..., 1:]


def decode_iuv(data: bytes, path: Path, *, red_first: bool) -> np.ndarray:
    """A PNG's bytes -> I, U, V (H, W, 3) uint8, u,v 0 on background. InputError names `path`."""
    try:
        why = no_iuv(png_header(data))
    except ValueError as error:
        raise InputError(f"{str(path)!r}: {error}; make it again") from error
    if why:
        raise InputError(f"{str(path)!r}: {why}")

    rgb = decode_image(data, path)
    iuv = rgb if red_first else rgb[..., ::-1]
    if iuv[..., 0].max(initial=0) >= len(DENSEPOSE24):
        order, other = ("iuv-rgb", "iuv") if red_first else ("iuv", "iuv-rgb")
        raise InputError(f"{str(path)!r}: holds the part {int(iuv[..., 0].max())} where DensePose knows "
                         f"{len(DENSEPOSE24) - 1}, read as {order}; its channels are in another order, try {other}")
    return np.where(iuv[..., :1] > 0, iuv, 0).astype(np.uint8)
