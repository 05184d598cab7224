"""What a learner needs to go on besides its model's weights, in a folder: safetensors of PyTorch's distributed
checkpoints, one file per process, and JSON values. Any number of processes reads what any other has written.
"""

import itertools
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from marl_llm.errors import RunError

VALUES = "learner.json"
FILE_BYTES = 2**32
"""Of whole tensors, all processes together: what a file takes is in memory twice while it is written."""


def write_state(
    folder: Path, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any], *, rank: int, processes: int
) -> None:
    """Write each process's part of the tensors, and the values; all processes call it with the same new folder.

    Raises:
        OSError: it could not be written.
    """
    folder.mkdir(exist_ok=processes > 1)
    if tensors:
        writer = HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=_files(tensors), save_distributed=True)
        _together(lambda: save(dict(tensors), storage_writer=writer, no_dist=processes == 1))
    if rank == 0:
        (folder / VALUES).write_text(json.dumps(values))


def _files(tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Number, from 1, of the file that each tensor, or each process's part of it, goes to."""
    ends = itertools.accumulate(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return {name: 1 + (end - 1) // FILE_BYTES for name, end in zip(tensors, ends)}


def read_values(folder: Path) -> dict[str, Any]:
    """The values that were written.

    Raises:
        RunError: they are not there.
    """
    try:
        values: dict[str, Any] = json.loads((folder / VALUES).read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"learner state {folder}: {VALUES} is missing or damaged") from error
    return values


def read_state(folder: Path, tensors: Mapping[str, torch.Tensor], *, processes: int) -> None:
    """Fill tensors, or each process's part of them, with what was written under their names.

    Raises:
        RunError: one is missing or has another shape; nothing has been filled.
    """
    if not tensors:
        return
    reader = HuggingFaceStorageReader(str(folder))
    found: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    for name, tensor in tensors.items():
        if name not in found or found[name].size != tensor.shape:
            raise RunError(f"learner state {folder}: {name} is missing or has another shape")
    _together(lambda: load(dict(tensors), storage_reader=reader, no_dist=processes == 1))


def _together(act: Callable[[], object]) -> None:
    """Do it; what failed in any process is raised in all, as what it was."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # meant: there is one process
            act()
    except CheckpointException as error:
        cause, _ = next(iter(error.failures.values()))
        raise cause from error
