"""What every learner does, be it in this process or a group of others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch

from marl_llm.types import Sample


class Trainer(Protocol):
    """The only owner of one policy's trainable weights and optimizer; `Learner` says what each of these does."""

    version: int
    """Number of training steps so far."""

    @property
    def by_pairs(self) -> bool:
        """Whether it compares the values of turns, instead of going by advantages."""

    def update(self, samples: Sequence[Sample], replayed: Sequence[Sample] = ()) -> dict[str, float]:
        """One training step, also on what is `replayed`; returns metrics."""

    def imitate(self, samples: Sequence[Sample], lr: float) -> float:
        """One supervised step; returns its loss."""

    def measure(self, samples: Sequence[Sample], names: Sequence[str]) -> dict[str, list[float]]:
        """Quantities of `learning.quantities.MEASURED` at every sampled token, under the present weights."""

    def weights(self) -> Mapping[str, torch.Tensor]:
        """What is trained; fetched when it is looked at, where it is elsewhere."""

    def save_state(self, folder: Path) -> None:
        """Write what resuming needs besides the weights to a new folder."""

    def load_state(self, folder: Path) -> None:
        """Continue from what `save_state` wrote."""

    def restart(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Begin anew from other weights."""
