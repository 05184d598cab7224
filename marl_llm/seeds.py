"""Where every random draw of a run comes from: numbers derived from the run's seed and the draw's place."""

import hashlib

import numpy as np


def derive(*parts: int | str) -> int:
    """A seed (0 <= seed < 2**63) that depends on all parts and their order, the same on every machine."""
    text = "\x1f".join([f"{type(part).__name__}:{part}" for part in parts])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A generator seeded with `derive(*parts)`."""
    return np.random.default_rng(derive(*parts))
