"""Compression: the normalised compression distance."""

import lzma
from collections.abc import Sequence

import numpy as np

#: lzma: a raw LZMA2 stream; xz: the same in a container, which pads it to 4 bytes.
CONTAINERS = {"lzma": lzma.FORMAT_RAW, "xz": lzma.FORMAT_XZ}


def ncd_matrix(items: Sequence[str | bytes], compressor: str = "lzma") -> np.ndarray:
    """Normalised compression distance of each item from each, itself too: shape (n, n), the row's item first.

    NCD(x, y) = (C(xy) − min(C(x), C(y))) / max(C(x), C(y)) (Cilibrasi and Vitányi 2005), C being the compressed size in
    bytes (text: of its UTF-8). About 0 for the same content, about 1 for unrelated content, and a little above at
    times, compressors being what they are. Symmetric, and zero on identity, only up to the compressor's overhead, which
    for a few bytes is everything: the XZ container pads to 4 bytes, so among short strings its distances are multiples
    of that.

    Args:
        compressor: a name of CONTAINERS.

    Raises:
        ValueError: an item that is neither text nor bytes, or an unknown compressor.
    """
    if compressor not in CONTAINERS:
        raise ValueError(f"unknown compressor {compressor!r}: use one of {', '.join(CONTAINERS)}")
    data = [item.encode() if isinstance(item, str) else item for item in items]
    for item in data:
        if not isinstance(item, bytes):
            raise ValueError(f"NCD compares text or bytes, not {type(item).__name__}")
    container = CONTAINERS[compressor]
    sizes = np.array([_size(item, container) for item in data])
    joint = np.array([[_size(first + second, container) for second in data] for first in data])
    return np.maximum(0, (joint - np.minimum.outer(sizes, sizes)) / np.maximum.outer(sizes, sizes))


def _size(data: bytes, container: int) -> int:
    # The dictionary holds the whole input; the preset's larger one gives the same bytes, far more slowly.
    dictionary = max(1 << 16, 1 << len(data).bit_length())
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]
    return len(lzma.compress(data, format=container, filters=filters))
