"""What every learner does, be it in this process or a group of others."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from marl_llm.types import Sample


class Trainer(Protocol):
    """The only owner of one policy's trainable weights and optimizer; `Learner` says what each of these does."""

    version: int
    """Number of training steps so far."""

    @property
    def by_pairs(self) -> bool:
        """Whether it compares the values of turns, instead of going by advantages."""

    def update(self, samples: Sequence[Sample]) -> dict[str, float]:
        """One training step; returns metrics."""

    def imitate(self, samples: Sequence[Sample], lr: float) -> float:
        """One supervised step; returns its loss."""

    def weights(self) -> Mapping[str, torch.Tensor]:
        """What is trained; fetched when it is looked at, where it is elsewhere."""

    def settle(self) -> None:
        """Give the model that it was made with the weights that it has now, if it has not."""

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What resuming needs besides the weights."""

    def restart(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Begin anew from other weights."""

    def load_state(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """Continue from what `state` gave."""
