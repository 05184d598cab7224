"""Draws that depend on (seed, index) alone, so that a request samples the same tokens in any company."""

import numpy as np
import torch
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(seeds: NDArray[np.uint64], indices: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers in [0, 1), a function of (seed, index) pair by pair; both arrays have shape (B,).

    SplitMix64 as a counter-based generator (Steele, Lea and Flood, OOPSLA 2014).
    """
    mixed = _mix(_mix(seeds + _GOLDEN) + (indices + np.uint64(1)) * _GOLDEN)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw(logprobs_BV: torch.Tensor, uniforms_B: torch.Tensor) -> torch.Tensor:
    """Tokens (B,) by inversion of the cumulative distribution; a token of probability 0 is never drawn."""
    cdf_BV = logprobs_BV.exp().cumsum(-1, dtype=torch.float64)
    targets_B1 = (uniforms_B * cdf_BV[:, -1])[:, None]
    return torch.searchsorted(cdf_BV, targets_B1, right=True)[:, 0]


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
