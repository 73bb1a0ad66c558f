"""Seeds of draws that depend only on (seed, keys)."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *keys: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and the ordered keys.

    The seed is a BLAKE2b hash, stable across machines.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *keys):
        data = repr(part).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(digest.digest(), "little") >> 1


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """Return NumPy's PCG64 generator seeded by `derive(seed, *keys)`."""
    return np.random.Generator(np.random.PCG64(derive(seed, *keys)))
