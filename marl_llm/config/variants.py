"""Names of variants: the settings in which they differ."""

import itertools
from collections.abc import Sequence


def short(names: Sequence[str]) -> list[str]:
    """Names of variants without the sections that all their settings are in: `a.b.c=1 a.d=2` is `b.c=1 d=2`."""
    keys = [setting.partition("=")[0].split(".")[:-1] for name in names for setting in name.split() if "=" in setting]
    shared = itertools.takewhile(lambda sections: len(set(sections)) == 1, zip(*keys))
    prefix = "".join(f"{sections[0]}." for sections in shared)
    return [" ".join(s.removeprefix(prefix) if "=" in s else s for s in name.split(" ")) for name in names]
