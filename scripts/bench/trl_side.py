"""TRL's side of `trl.py`: runs in TRL's own environment, without anything of ours.

Reads a task as JSON from standard input and writes what it measured as JSON to the file that the task names.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer  # type: ignore[attr-defined]  # mypy takes trl.py beside it for the package


def variety(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    """The reward: how many different characters a reply has."""
    return [float(len(set(completion))) for completion in completions]


class Ends(TrainerCallback):  # type: ignore[misc]  # TRL's environment has the types
    """Notes when each step ends."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(self.clock())


class Timed(GRPOTrainer):  # type: ignore[misc]
    """Notes how long each step generates, and how many tokens."""

    def __init__(self, clock: Any, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.clock = clock
        self.generate_s: list[float] = []
        self.sampled_tokens: list[int] = []
        self.prompt_tokens: list[int] = []

    def _generate_single_turn(self, prompt_ids: list[list[int]], *rest: Any, **named: Any) -> Any:
        began = self.clock()
        out = super()._generate_single_turn(prompt_ids, *rest, **named)
        self.generate_s.append(self.clock() - began)
        self.sampled_tokens.append(sum(map(len, out[0])))
        self.prompt_tokens.append(sum(map(len, prompt_ids)))
        return out


def main() -> None:
    task = json.load(sys.stdin)
    clock = time.process_time if task["cpu_time"] else time.perf_counter
    torch.set_num_threads(task["threads"])
    completions = task["groups"] * task["group_size"]
    config = GRPOConfig(
        output_dir=task["folder"] + "/output",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        learning_rate=task["lr"],
        lr_scheduler_type="constant",
        max_steps=task["steps"],
        per_device_train_batch_size=task["micro_batch"],
        gradient_accumulation_steps=completions // task["micro_batch"],
        num_generations=task["group_size"],
        max_completion_length=task["max_tokens"],
        use_transformers_continuous_batching=task["continuous"],
        shuffle_dataset=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
    )
    ends = Ends(clock)
    trainer = Timed(
        clock,
        model=task["folder"] + "/model",
        reward_funcs=variety,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in task["prompts"]]),
        callbacks=[ends],
    )
    trainer.train()
    rows = {
        "step_s": [after - before for before, after in zip(ends.ends, ends.ends[1:])],
        "generate_s": trainer.generate_s[1:],
        "sampled_tokens": trainer.sampled_tokens[1:],
        "prompt_tokens": trainer.prompt_tokens[1:],
    }
    Path(task["result"]).write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
