"""Write `docs/credit.md` from the recipes in `configs/credit`, their stages and the numbers they are checked against.

PYTHONPATH=. python scripts/credit_docs.py [--check]
"""

import argparse
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from marl_llm.credit.load import PLAIN, RECIPES, REMEMBERING, SOURCES, STAGES, Recipe, Step, load_recipe, recipe_names
from marl_llm.credit.needs import OFFERS, needs

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "credit.md"
GOLDEN = ROOT / "tests" / "credit" / "golden"

HEAD = """# Credit

Made by `scripts/credit_docs.py` from `configs/credit` and `marl_llm/credit`; `tests/test_credit_docs.py` sees that it
is up to date. A recipe is chosen by `credit=NAME`, or written out:

```yaml
credit:
  about: rewards to go, compared with the same deal from the same seat
  stages:
    - reward: {weights: {format: 0.1}}
    - returns: {gamma: 0.95}
    - center: {keys: [group, role, policy], per: episode}
    - clip: {low: -2, high: 2}
```

A stage takes one number per turn and gives one; with `unit: token` there is one per sampled token, and a turn's
reward stands on its last one. The first stage says where numbers come from; `sum` adds up whole recipes. Unknown
values (a judge that failed) are NaN, enter no statistic and end as advantage 0; a lone member of a key gets 0; so
does who has no spread. `marl-llm credit NAME RUN --compare OTHER ...` shows all of it on logged episodes: every
stage's value, how far recipes agree, which signs they turn round, and with `--turn EPISODE#TURN` whom a turn was
compared with at each stage.

**Needs** are what a run must offer, or it is refused at its start. **With** are settings that belong to the method
and are yours to make (`agent` stands for your policy). **Numbers** are the cases, worked out from the paper's formula
or by the released code, that the recipe's stages are tested against (`tests/credit/golden`); a dash means numbers by
hand in `tests/credit` alone. Methods marked (ours) are our own, or our form of another's.
"""


def page() -> str:
    """The whole page."""
    recipes = [load_recipe(name) for name in recipe_names()]
    return "\n".join([HEAD, _recipes(recipes), _notes(recipes), _stages(), _offers()])


def _recipes(recipes: Sequence[Recipe]) -> str:
    numbers = golden()
    lines = [
        f"## {len(recipes)} recipes\n",
        "| recipe | what it is | stages | needs | with | numbers |",
        "|---|---|---|---|---|---|",
    ]
    for recipe in recipes:
        unit = "by token: " if recipe.by_token else ""
        cells = [
            f"`{recipe.name}`",
            recipe.about,
            unit + _chain(recipe.stages),
            ", ".join(needs(recipe)) or "-",
            ", ".join(f"`{setting}`" for setting in recipe.settings) or "-",
            ", ".join(f"{name} ({numbers[name]})" for name in recipe.checked) or "-",
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def golden() -> dict[str, int]:
    """Name of a method to how many cases there are of it."""
    return {name: len(cases) for file in GOLDEN.glob("*.json") for name, cases in json.loads(file.read_text()).items()}


def _chain(steps: Sequence[Step]) -> str:
    return " → ".join(_step(step) for step in steps)


def _step(step: Step) -> str:
    if step.stage == "sum":
        terms = (f"{term.weight:g} × ({_chain(term.steps)})" for term in step.terms)
        return " + ".join(terms)
    keys = step.params.get("keys")
    return step.stage + (f" by {', '.join(keys) or 'all'}" if keys is not None else "")


def _notes(recipes: Sequence[Recipe]) -> str:
    """Why, and where paper and release differ: the comments in the files."""
    lines = ["## What the files say\n"]
    for recipe in recipes:
        text = (RECIPES / f"{recipe.name}.yaml").read_text().splitlines()
        comment = " ".join(line.removeprefix("#").strip() for line in text if line.startswith("#"))
        if comment:
            lines.append(f"- `{recipe.name}`: {comment}")
    return "\n".join(lines) + "\n"


def _stages() -> str:
    kinds: Mapping[str, Mapping[str, object]] = {
        "Where numbers come from": SOURCES,
        "What is made of them": PLAIN,
        "What remembers earlier steps": REMEMBERING,
    }
    blocks = ["## Stages\n"]
    for title, stages in kinds.items():
        blocks.append(f"### {title}\n")
        for name in sorted(stages):
            about = (inspect.getdoc(STAGES[name]) or "").split("\n\n")[0]
            blocks.append(f"- `{name}({_parameters(name)})`: {' '.join(about.split())}")
        blocks.append("")
    return "\n".join(blocks)


def _parameters(stage: str) -> str:
    named = inspect.signature(STAGES[stage]).parameters.values()
    return ", ".join(_parameter(p.name, p.default) for p in named if p.kind is p.KEYWORD_ONLY)


def _parameter(name: str, default: Any) -> str:
    if default is inspect.Parameter.empty:
        return name
    plain = dict(default) if isinstance(default, Mapping) else list(default) if isinstance(default, tuple) else default
    return f"{name}={yaml.safe_dump(plain, default_flow_style=True).split('...')[0].strip()}"


def _offers() -> str:
    lines = ["## What may be needed, and who offers it\n"]
    return "\n".join([*lines, *(f"- `{name}`: {who}" for name, who in sorted(OFFERS.items()))]) + "\n"


def main() -> int:
    """Write the page, or with `--check` say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is not up to date")
    text = page()
    if parser.parse_args().check:
        same = PAGE.is_file() and PAGE.read_text() == text
        print(f"{PAGE}: {'up to date' if same else 'run scripts/credit_docs.py'}")
        return 0 if same else 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
