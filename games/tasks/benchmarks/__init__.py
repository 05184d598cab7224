"""Benchmarks that people compare models by: one file each, with its data set, prompt, gold answer and checker."""

BENCHMARKS = (
    "aime24",
    "aime25",
    "amc23",
    "aqua",
    "gpqa_diamond",
    "gsm8k",
    "humaneval",
    "math500",
    "mbpp",
    "mmlu",
    "mmlu_stem",
    "scibench",
)
"""Names, each that of a module here with a function `tasks(name, *, path, size, ...)`."""
