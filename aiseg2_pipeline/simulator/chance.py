"""Stateless pseudo-random numbers, each a function of the seed, a subject and an index.

So any moment can be computed in any order, in any process, with the same result.
"""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_64_BITS = 0xFFFF_FFFF_FFFF_FFFF


def uniform(seed: int, subject: str, index: IntArray) -> FloatArray:
    """Return one number in [0, 1) for each index: the same for the same seed, subject and index.

    The hash is splitmix64 (public domain): numbers of neighbouring indices are independent.
    """
    stream = (seed * 0xD1B5_4A32_D192_ED03 + zlib.crc32(subject.encode()) * 0x9E37_79B9_7F4A_7C15) & _64_BITS
    mixed = index.astype(np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15) + np.uint64(stream)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def wave(seed: int, subject: str, position: FloatArray) -> FloatArray:
    """Return a continuous curve in [0, 1): `uniform` at whole positions, linear between them."""
    knot = np.floor(position).astype(np.int64)
    left = uniform(seed, subject, knot)
    right = uniform(seed, subject, knot + 1)
    return left + (right - left) * (position - knot)
