"""Word problems that lead to linear equations, in five levels: from one step to three unknowns."""

from random import Random

from games.tasks.algebra_stories import LEVELS, NAMES, THINGS, Story
from games.tasks.base import check_between
from games.tasks.generated import Draft, Maker, split_of

NAME = "algebra"


def maker(*, level: int = 1) -> Maker:
    """Word problems of a level, 1 to 5; the answer is a whole number, 1 or more.

    The equations that a problem leads to are in its metadata; `x` is what is asked for. The split looks at story and
    numbers only, so that no problem of the one is in the other under different names.

    Raises:
        ValueError: there is no such level.
    """
    check_between(NAME, 1, len(LEVELS), level=level)
    stories = LEVELS[level - 1]

    def make(draws: Random) -> Draft:
        number = draws.randrange(len(stories))
        story = stories[number]
        values = _values(draws, story)
        p, q, r = draws.sample(NAMES, 3)
        thing, other = draws.sample(THINGS, 2)
        return Draft(
            prompt=story.text.format(**values, p=p, q=q, r=r, thing=thing, other=other),
            answer=str(values["x"]),
            check="number",
            split=split_of(f"{level}/{number} {sorted(values.items())}"),
            metadata={
                "level": level,
                "story": number,
                "equations": [equation.format(**values) for equation in story.equations],
            },
        )

    return make


def _values(draws: Random, story: Story) -> dict[str, int]:
    """Numbers that fit the story, `x` among them: all of them 1 or more."""
    while True:
        drawn = {name: draws.randint(*limits) for name, limits in story.ranges.items()}
        values = drawn | story.rest(**drawn)
        if min(values.values()) >= 1:
            return values
