"""The policy that the learner is pulled towards: frozen, a moving average, or a periodic snapshot.

A reference that moves with the policy is what lets self-play settle instead of cycling (magnetic mirror
descent, arXiv 2206.05825; R-NaD, 2206.15378).
"""

import copy
from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from marl_llm.config import KLConfig
from marl_llm.learning.forward import Trunk
from marl_llm.learning.sharding import local


def copy_of(model: PreTrainedModel) -> PreTrainedModel:
    """A copy that never needs gradients; what is frozen in the model is shared with it, such as an adapter's base."""
    frozen = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
    copied: PreTrainedModel = copy.deepcopy(model, frozen).requires_grad_(False)
    return copied


class Reference:
    """A copy of the policy's model that follows it as `KLConfig.reference` says.

    `trained` are the policy's parameters that it follows, by their names in both models; of sharded ones each process
    moves its own part.
    """

    def __init__(self, trunk: Trunk, trained: Mapping[str, torch.nn.Parameter], config: KLConfig) -> None:
        self.trunk = trunk
        mine = dict(trunk.model.named_parameters())
        self._parameters = {name: mine[name] for name in trained}
        self._mine = [local(parameter) for parameter in self._parameters.values()]
        self._theirs = [local(parameter) for parameter in trained.values()]
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
        return {name: parameter.detach() for name, parameter in self._parameters.items()}
