"""Compression: the normalised compression distance."""

import lzma
import zlib
from collections.abc import Sequence

import numpy as np


def _lzma2(data: bytes, container: int) -> bytes:
    # The dictionary holds the whole input; the preset's larger one gives the same bytes, far more slowly.
    dictionary = max(1 << 16, 1 << len(data).bit_length())
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]
    return lzma.compress(data, format=container, filters=filters)


#: lzma: a raw LZMA2 stream; xz: the same in a container, which pads it to 4 bytes; zlib: sees 32 KB back.
COMPRESSORS = {
    "lzma": lambda data: _lzma2(data, lzma.FORMAT_RAW),
    "xz": lambda data: _lzma2(data, lzma.FORMAT_XZ),
    "zlib": lambda data: zlib.compress(data, 9),
}


def ncd(x: str | bytes, y: str | bytes, compressor: str = "lzma") -> float:
    """Normalised compression distance (C(xy) − min(C(x), C(y))) / max(C(x), C(y)) (Cilibrasi and Vitányi 2005).

    C is the compressed size in bytes (text: of its UTF-8). About 0 for the same content, about 1 for unrelated
    content, and a little above at times, compressors being what they are. Symmetric, and zero on identity, only up to
    the compressor's overhead, which for a few bytes is everything: the XZ container pads to 4 bytes, so among short
    strings its distances are multiples of that. zlib looks back 32 KB: beyond, even NCD(x, x) is 1.

    Raises:
        ValueError: neither text nor bytes, or an unknown compressor.
    """
    return float(ncd_matrix([x, y], compressor)[0, 1])


def ncd_matrix(items: Sequence[str | bytes], compressor: str = "lzma") -> np.ndarray:
    """`ncd` of each item with each, itself too: shape (n, n), the row's item first.

    Raises:
        ValueError: as `ncd`.
    """
    if compressor not in COMPRESSORS:
        raise ValueError(f"unknown compressor {compressor!r}: use one of {', '.join(COMPRESSORS)}")
    data = [item.encode() if isinstance(item, str) else item for item in items]
    for item in data:
        if not isinstance(item, bytes):
            raise ValueError(f"NCD compares text or bytes, not {type(item).__name__}")
    compress = COMPRESSORS[compressor]
    sizes = np.array([len(compress(item)) for item in data])
    joint = np.array([[len(compress(first + second)) for second in data] for first in data])
    return np.maximum(0, (joint - np.minimum.outer(sizes, sizes)) / np.maximum.outer(sizes, sizes))
