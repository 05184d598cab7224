"""Trained policies as folders that other programs load: one policy with a model card, or a team with a manifest."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from marl_llm import adapters
from marl_llm.config import Config
from marl_llm.credit.load import load_recipe
from marl_llm.errors import ConfigError, RunError
from marl_llm.evaluation.measure import logged
from marl_llm.files import whole_folder
from marl_llm.matchmaking import trained_policy
from marl_llm.models import LanguageModel
from marl_llm.run import Run, checkpoint_of, list_evaluations
from marl_llm.team import language_model
from marl_llm.text import answer_instruction

MANIFEST = "team.json"
FORMAT = "marl-llm team, version 1"


def export_policy(run: Path, to: Path, *, policy: str | None, step: int | None, adapter: bool) -> str:
    """Write a policy as a Hugging Face folder with a model card; returns its name.

    `policy`: None is the trained one. `adapter`: its adapter alone, in PEFT's format; a base that was made in the run
    comes along in the folder `base`. Else an adapter is merged with its base.

    Raises:
        ConfigError: there is no such policy with a model, or it has no adapter.
        RunError: the run has no such checkpoint, the folder is there already, or it could not be written.
    """
    config, (at, checkpoint) = Run.config(run), checkpoint_of(run, step)
    name = policy or trained_policy(config)
    _require_model(config, name, adapter=adapter)
    _require_new(to)
    with whole_folder(to) as folder:
        _write(config, name, language_model(config, name, checkpoint), folder, adapter=adapter)
        (folder / "README.md").write_text(card(config, run, name, at, adapter=adapter))
    return name


def export_team(run: Path, to: Path, *, step: int | None) -> list[str]:
    """Write all policies with a model as folders, merged, in one folder with a manifest; returns their names.

    The manifest (`team.json`) says who sits where in which game, and how it is played.

    Raises:
        RunError: the run has no such checkpoint, the folder is there already, or it could not be written.
    """
    config, (at, checkpoint) = Run.config(run), checkpoint_of(run, step)
    names = [name for name, settings in config.policies.items() if settings.kind == "llm"]
    _require_new(to)
    with whole_folder(to) as folder:
        for name in names:
            _write(config, name, language_model(config, name, checkpoint), folder / name, adapter=False)
            (folder / name / "README.md").write_text(card(config, run, name, at, adapter=False))
        (folder / MANIFEST).write_text(json.dumps(manifest(config, names, at), indent=1) + "\n")
        (folder / "README.md").write_text(team_card(config, run, names, at))
    return names


def manifest(config: Config, names: Iterable[str], step: int) -> dict[str, Any]:
    """What is needed to let the policies play together again, as JSON."""
    return {
        "format": FORMAT,
        "run": config.run.name,
        "seed": config.run.seed,
        "step": step,
        "policies": {name: {"folder": name, "temperature": config.policies[name].temperature} for name in names},
        "others": {n: {"kind": p.kind, "options": p.options} for n, p in config.policies.items() if p.kind != "llm"},
        "games": {
            label: {"name": game.name, "settings": game.settings, "seats": dict(config.seats(label))}
            for label, game in config.games.items()
        },
        "play": asdict(config.play),
    }


def card(config: Config, run: Path, name: str, step: int, *, adapter: bool) -> str:
    """The model card of a policy, in Markdown."""
    settings = config.policies[name]
    root = config.policies[settings.base] if settings.base else settings
    base = root.model or f"made on the spot: Qwen3 architecture, {json.dumps(asdict(root.tiny))}"
    head = ["---", "library_name: " + ("peft" if adapter else "transformers"), "pipeline_tag: text-generation"]
    if root.model and not Path(root.model).is_dir():
        head.append(f"base_model: {root.model}")
    head += ["tags: [marl-llm, self-play, multi-agent]", "---", ""]
    learned = settings.learns
    lines = [
        f"# {name} of {config.run.name}",
        "",
        f"A policy that {'learned' if learned else 'took part'} in games with marl-llm, after {step} steps of "
        f"{config.run.steps} (seed {config.run.seed}).",
        "",
        f"- **Base**: {base}",
        f"- **Adapter**: {f'LoRA of rank {settings.lora.rank}' if settings.lora else 'none'}"
        + (", merged into the base" if settings.lora and not adapter else ""),
        *(f"- **Game** `{label}`: {line}" for label, line in _games(config)),
        f"- **Recipe**: {_recipe(config)}",
        f"- **Learner**: `{json.dumps(asdict(settings.learner))}`" if learned else "- **Learner**: none",
        "",
        "## Results",
        "",
        *_results(run, step),
        "",
        "## Use",
        "",
        *_use(config, adapter=adapter, made=adapter and root.model is None),
        "",
    ]
    return "\n".join(head + lines)


def team_card(config: Config, run: Path, names: Iterable[str], step: int) -> str:
    """The card of a team, in Markdown."""
    lines = [
        "---",
        "tags: [marl-llm, self-play, multi-agent]",
        "---",
        "",
        f"# The team of {config.run.name}",
        "",
        f"Policies that play together, after {step} steps (seed {config.run.seed}); `{MANIFEST}` says who sits where.",
        "",
        *(f"- [`{name}`]({name}/README.md)" for name in names),
        *(f"- game `{label}`: {line}" for label, line in _games(config)),
        "",
        "## Results",
        "",
        *_results(run, step),
        "",
        "## Use",
        "",
        "In `marl-llm benchmark`, with the path of this folder:",
        "",
        "```yaml",
        *_entry(config, names),
        "```",
        "",
        "`play` is how this run played, and should be the benchmark's.",
        "",
    ]
    return "\n".join(lines)


def _write(config: Config, name: str, model: LanguageModel, folder: Path, *, adapter: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if model.base is None:
        model.save(folder)
    elif adapter:
        own = config.policies[config.policies[name].base or name].model
        model.save(folder, base=own or "base")
        model.tokenizer.save_pretrained(folder)
        if own is None:
            model.base.save(folder / "base")
    else:
        merged = adapters.merge(model.base.model, model.model)
        LanguageModel(model=merged, tokenizer=model.tokenizer).save(folder)


def _require_model(config: Config, name: str, *, adapter: bool) -> None:
    models = sorted(n for n, settings in config.policies.items() if settings.kind == "llm")
    if name not in models:
        raise ConfigError(f"export: policy {name!r} is not allowed; it must be one of {models}")
    if adapter and config.policies[name].lora is None:
        raise ConfigError(f"export: policy {name!r} has no adapter; leave --adapter out")


def _require_new(to: Path) -> None:
    if to.exists():
        raise RunError(f"{to} exists already; choose another folder")


def _games(config: Config) -> Iterator[tuple[str, str]]:
    for label, game in config.games.items():
        yield label, f"`{game.name}` with `{json.dumps(game.settings)}`" + ("" if game.share else ", held out")


def _recipe(config: Config) -> str:
    recipe = load_recipe(config.credit)
    return f"`{recipe.name}`, {recipe.about}" if recipe.about else f"`{recipe.name}`"


def _results(run: Path, step: int) -> Iterator[str]:
    """A table of what was measured, before training and at the step or last before it."""
    steps = [at for at, _ in list_evaluations(run) if at <= step]
    if not steps:
        yield "Nothing was measured."
        return
    first, last = logged(run, steps[0]), logged(run, steps[-1])
    before: Mapping[str, float] = first.metrics() if first else {}
    after: Mapping[str, float] = last.metrics() if last else {}
    yield f"| measured | step {steps[0]} | step {steps[-1]} |"
    yield "|---|---|---|"
    for name, value in after.items():
        yield f"| `{name}` | {before[name]:.4g} | {value:.4g} |" if name in before else f"| `{name}` | | {value:.4g} |"


def _entry(config: Config, names: Iterable[str]) -> Iterator[str]:
    """What the settings of a benchmark say of the team, in YAML."""
    seats = config.seats(next(iter(config.games)))
    yield from ("teams:", "  theirs:", "    policies:")
    for name in names:
        model = f"model: FOLDER/{name}, trainable: false, temperature: {config.policies[name].temperature}"
        yield f"      {name}: {{kind: llm, {model}}}"
    for name, policy in config.policies.items():
        if policy.kind != "llm" and name in seats.values():
            yield f"      {name}: {{kind: {policy.kind}, options: {json.dumps(policy.options)}}}"
    yield f"    seats: {json.dumps(dict(seats))}"
    yield f"play: {json.dumps({key: getattr(config.play, key) for key in _PLAYED})}"


_PLAYED = ("context", "thinking", "answers", "max_reply_tokens", "context_tokens", "max_turns")
"""Settings of play that count outside of training."""


def _use(config: Config, *, adapter: bool, made: bool) -> list[str]:
    """`made`: an adapter's base was made in the run, and lies beside it."""
    told = "\n" + answer_instruction(config.play.thinking, plain=config.play.answers == "plain")
    system = f"RULES + {told!r}" if told.strip() else "RULES"
    return [
        "```python",
        *_loading(adapter=adapter, made=made),
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        f'messages = [{{"role": "system", "content": {system}}},',
        '            {"role": "user", "content": OBSERVATION}]',
        "```",
        "",
        f"It was trained at temperature {_temperatures(config)}, with replies of at most "
        f"{config.play.max_reply_tokens} tokens and {_VIEW[config.play.context]} in view. "
        "As a player of another experiment: "
        "`policies.NAME.model=FOLDER`.",
    ]


def _loading(*, adapter: bool, made: bool) -> list[str]:
    """The model in Python. PEFT would look for a base beside the adapter from where the program runs."""
    if made:
        return [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'base = AutoModelForCausalLM.from_pretrained("FOLDER/base")',
            'model = PeftModel.from_pretrained(base, "FOLDER")',
        ]
    load, where = ("AutoPeftModelForCausalLM", "peft") if adapter else ("AutoModelForCausalLM", "transformers")
    return [
        f"from {where} import {load}",
        "from transformers import AutoTokenizer",
        "",
        f'model = {load}.from_pretrained("FOLDER")',
    ]


_VIEW = {"turn": "one turn", "dialogue": "the whole dialogue"}


def _temperatures(config: Config) -> str:
    return ", ".join(sorted({f"{policy.temperature:g}" for policy in config.policies.values() if policy.kind == "llm"}))
