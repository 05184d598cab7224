"""One learner in several processes: who joins, who computes what, and weights of which each holds a part (FSDP2).

All processes make the same calls with the same samples. What is here is a collective: all of them must come along.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from marl_llm.config.require import require
from marl_llm.errors import TrainingError
from marl_llm.learning.batch import MicroBatch, Row, micro_batches, shared_micro_batches
from marl_llm.learning.forward import Trunk, layers_of


def join(address: str, *, rank: int, processes: int, device: str, timeout_s: float = 1800.0) -> None:
    """Make this process the `rank`-th (from 0) of those that make up one learner; returns when all have come.

    `address`: HOST:PORT where the first of them listens. `device`: `cpu` (gloo) or `cuda` (nccl, and gloo for what is
    on the CPU); the GPU is the first that the process sees. Who waits longer than `timeout_s` for another gives up.

    Raises:
        torch.distributed.DistError: the others did not come.
    """
    if device == "cuda":
        torch.cuda.set_device(0)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        init_method=f"tcp://{address}",
        rank=rank,
        world_size=processes,
        timeout=timedelta(seconds=timeout_s),
    )


def leave() -> None:
    """Undo `join`."""
    dist.destroy_process_group()


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a sharded tensor, or the whole of another one; not copied."""
    part: torch.Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part.detach()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor, in every process."""
    full: torch.Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full


class Processes:
    """Those that make up one learner. Where it is one, nothing is exchanged, and nothing changes.

    Raises:
        ConfigError: `count` is more than 1, and this process has not joined as many.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        present = dist.get_world_size() if count > 1 and dist.is_initialized() else 1
        require(count == present, "learner.processes", count, f"as many as there are, which are {present}")
        self.count = count
        self.rank = dist.get_rank() if count > 1 else 0
        self._device = device
        self._mesh: DeviceMesh | None = init_device_mesh(device.type, (count,)) if count > 1 else None

    def shard(self, trunk: Trunk, *, bfloat16: bool) -> None:
        """Leave each process its part of the parameters: by layer, and embedding, last norm and head as one.

        Passes are in bfloat16 if wanted; parameters, and the sums of gradients, are in float32. Parameters are others
        afterwards, and the gradient of each is the sum over processes.
        """
        if self._mesh is None:
            return
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if bfloat16 else None, reduce_dtype=torch.float32 if bfloat16 else None
        )
        for module in (*layers_of(trunk.model), trunk):
            sharded = fully_shard(module, mesh=self._mesh, mp_policy=policy)
            sharded.set_gradient_divide_factor(1.0)  # the loss is weighed over the whole batch already
            sharded.set_force_sum_reduction_for_comms(True)
            sharded.set_reduce_scatter_unused_params(True)  # an expert may have had no token in one process

    def micro_batches(self, rows: Sequence[Row], micro_batch_tokens: int) -> list[MicroBatch]:
        """Those of this process; all have equally many."""
        if self.count == 1:
            return micro_batches(rows, micro_batch_tokens)
        return shared_micro_batches(rows, micro_batch_tokens, rank=self.rank, processes=self.count)

    def rest(self, *trunks: Trunk) -> None:
        """Free the embedding, norm and head that a pass gathered; a backward pass does that for its own model."""
        for trunk in trunks:
            if isinstance(trunk, FSDPModule):
                trunk.reshard()

    def reset(self, *trunks: Trunk) -> None:
        """Forget a pass that was broken off."""
        for trunk in trunks:
            if isinstance(trunk, FSDPModule):
                trunk.reset_iter_state()

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def sums(self, values: Sequence[float]) -> list[float]:
        """Of each number the sum over processes."""
        return self._combined(values, dist.ReduceOp.SUM)

    def largest(self, values: Sequence[float]) -> list[float]:
        """Of each number the largest of all processes."""
        return self._combined(values, dist.ReduceOp.MAX)

    def _combined(self, values: Sequence[float], how: dist.ReduceOp.RedOpType) -> list[float]:
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.all_reduce(tensor, how)
        result: list[float] = tensor.tolist()
        return result

    def agree(self, error: TrainingError | None) -> None:
        """Raise the error of any process in all of them.

        Raises:
            TrainingError: there is one.
        """
        if self.count == 1 and error is not None:
            raise error
        if not any(self.largest([float(error is not None)])):
            return
        told: list[str | None] = [None] * self.count
        dist.all_gather_object(told, None if error is None else str(error))
        raise TrainingError(next(message for message in told if message is not None)) from error

    def gathered(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Whole tensors on the CPU in the first process, nothing in the others; alone, what is given."""
        if self.count == 1:
            return dict(tensors)
        seen: dict[int, torch.Tensor] = {}  # tied weights stay one tensor
        result = {}
        for name, tensor in tensors.items():
            full = seen.get(id(tensor))
            if full is None:
                full = whole(tensor).detach()
                full = full.cpu() if self.rank == 0 else full.new_empty(0)
                seen[id(tensor)] = full
            result[name] = full
        return result if self.rank == 0 else {}

    def like(self, given: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """The part of `given`, which is whole in every process, that `own` is of its like."""
        if not isinstance(own, DTensor) or isinstance(given, DTensor):
            return given
        moved = given.to(own.device)
        return distribute_tensor(moved, own.device_mesh, own.placements, src_data_rank=None)
