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
    """A copy of the policy's model that follows it as `KLConfig.reference` says; it never needs gradients.

    What is frozen in the model is not copied: an adapter's reference is an adapter on the same base.
    """

    def __init__(self, model: PreTrainedModel, config: KLConfig) -> None:
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        frozen = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
        self.model: PreTrainedModel = copy.deepcopy(model, frozen).requires_grad_(False)
        mine = dict(self.model.named_parameters())
        self._names = list(trained)
        self._mine, self._theirs = [mine[name] for name in trained], list(trained.values())
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
        """The weights that follow, by parameter name, without a copy."""
        return {name: parameter.detach() for name, parameter in zip(self._names, self._mine)}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy the weights that `tensors()` gave.

        Raises:
            RunError: a weight is missing or has another shape.
        """
        for name, parameter in zip(self._names, self._mine):
            if name not in tensors or tensors[name].shape != parameter.shape:
                raise RunError(f"learner state: weight {name} of the reference is missing or has another shape")
            parameter.copy_(tensors[name])
