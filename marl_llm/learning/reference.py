"""The policy that the learner is pulled towards: frozen, a moving average, or a periodic snapshot.

A reference that moves with the policy is what lets self-play settle instead of cycling (magnetic mirror
descent, arXiv 2206.05825; R-NaD, 2206.15378).
"""

import copy
from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from marl_llm.config import KLConfig
from marl_llm.errors import RunError


class Reference:
    """A copy of the policy's model that follows it as `KLConfig.reference` says; it never needs gradients."""

    def __init__(self, model: PreTrainedModel, config: KLConfig) -> None:
        self.model: PreTrainedModel = copy.deepcopy(model).requires_grad_(False)
        self._mine, self._theirs = list(self.model.parameters()), list(model.parameters())
        self._config = config

    def copy_policy(self) -> None:
        """Take over the policy's present weights."""
        self._follow(1.0)

    def after_optimizer_step(self) -> None:
        """Move an EMA by `1 - decay` towards the policy."""
        if self._config.reference == "ema":
            self._follow(1 - self._config.decay)

    def after_training_step(self, version: int) -> None:
        """Take a snapshot if `version`, the number of training steps so far, is a multiple of `every`."""
        if self._config.reference == "snapshot" and version % self._config.every == 0:
            self.copy_policy()

    @torch.no_grad()
    def _follow(self, share: float) -> None:
        if share == 1.0:
            torch._foreach_copy_(self._mine, self._theirs)
        else:
            torch._foreach_lerp_(self._mine, self._theirs, share)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The weights by parameter name, without a copy."""
        return {name: parameter.detach() for name, parameter in self.model.named_parameters()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy the weights that `tensors()` gave.

        Raises:
            RunError: a weight is missing or has another shape.
        """
        for name, parameter in self.model.named_parameters():
            if name not in tensors or tensors[name].shape != parameter.shape:
                raise RunError(f"learner state: weight {name} of the reference is missing or has another shape")
            parameter.copy_(tensors[name])
