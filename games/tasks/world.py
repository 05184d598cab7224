"""A world that never was: people, places, organisations and events, and facts that link them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

SHARES = {"country": 0.02, "city": 0.14, "organisation": 0.18, "event": 0.16}
"""Share of each kind among all things of a world, of which there are `LEAST` at least; the rest are people."""
LEAST = {"country": 2, "city": 4, "organisation": 3, "event": 3}

FIRST_NAMES = (
    *("Ada", "Alma", "Boris", "Carl", "Clara", "Dora", "Edgar", "Elsa", "Emil", "Felix", "Greta", "Hanna", "Hedda"),
    *("Igor", "Irma", "Jonas", "Julia", "Karin", "Konrad", "Lena", "Linus", "Magda", "Milo", "Nadia", "Nils", "Olaf"),
    *("Otto", "Petra", "Ralf", "Rita", "Selma", "Simon", "Tara", "Theo", "Ursula", "Viktor", "Wanda", "Xenia"),
)
EVENTS = ("Fair", "Festival", "Games", "Prize", "Race", "Summit")
ORGANISATIONS = ("Bank", "Club", "Institute", "Press", "School", "Society", "Theatre", "Works")
_ONSETS = ("b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "kr", "st", "tr")
_VOWELS = "aeiou"
_ENDS = {
    "country": ("ia", "land"),
    "city": ("burg", "ford", "ton"),
    "person": ("man", "sen", "ski"),
    "": ("l", "n", "x"),
}

Facts = dict[str, str]
"""Relation to the name of the thing, or the year, that it leads to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """A person, place, organisation or event."""

    name: str
    """Its name, which no other thing has, and which is in no other name."""
    kind: str
    """`person`, `city`, `country`, `organisation` or `event`."""
    facts: Mapping[str, str]
    """What its document states of it: relation to the other thing's name, or a year."""


def world(size: int, seed: int) -> dict[str, Thing]:
    """`size` things by name, in random order; every relation leads from a thing to at most one other.

    The same size and seed make the same world.
    """
    draws = Random(f"world {size} {seed}")
    names = _names(draws, size)
    facts: dict[str, Facts] = {name: {} for kind in names.values() for name in kind}
    _place(draws, names, facts)
    _people(draws, names, facts)
    _organise(draws, names, facts)
    kinds = {name: kind for kind, members in names.items() for name in members}
    order = list(kinds)
    draws.shuffle(order)
    return {name: Thing(name=name, kind=kinds[name], facts=facts[name]) for name in order}


def _names(draws: Random, size: int) -> dict[str, list[str]]:
    """Names by kind. Each has a root of its own, so that no name can be read off another."""
    counts = {kind: max(LEAST[kind], round(share * size)) for kind, share in SHARES.items()}
    counts["person"] = size - sum(counts.values())
    roots: set[str] = set()
    names: dict[str, list[str]] = {}
    for kind, count in counts.items():
        names[kind] = []
        while len(names[kind]) < count:
            root = _root(draws, kind)
            if root not in roots:
                roots.add(root)
                names[kind].append(_name(draws, kind, root))
    return names


def _root(draws: Random, kind: str) -> str:
    syllables = "".join(draws.choice(_ONSETS) + draws.choice(_VOWELS) for _ in range(2))
    return (syllables + draws.choice(_ENDS.get(kind, _ENDS[""]))).capitalize()


def _name(draws: Random, kind: str, root: str) -> str:
    if kind == "person":
        return f"{draws.choice(FIRST_NAMES)} {root}"
    if kind == "organisation":
        return f"{root} {draws.choice(ORGANISATIONS)}"
    return f"{root} {draws.choice(EVENTS)}" if kind == "event" else root


def _place(draws: Random, names: Mapping[str, Sequence[str]], facts: Mapping[str, Facts]) -> None:
    """Countries and cities: each country has a city at least, and one of its cities as its capital."""
    cities: dict[str, list[str]] = {country: [] for country in names["country"]}
    for number, city in enumerate(names["city"]):
        country = names["country"][number] if number < len(names["country"]) else draws.choice(names["country"])
        cities[country].append(city)
        facts[city] |= {"country": country, "mayor": draws.choice(names["person"])}
    for country, its_cities in cities.items():
        facts[country] |= {"capital": draws.choice(its_cities), "leader": draws.choice(names["person"])}


def _people(draws: Random, names: Mapping[str, Sequence[str]], facts: Mapping[str, Facts]) -> None:
    """People: all were born, most work, learned from somebody older and are married; marriage is mutual."""
    people = list(names["person"])
    for person in people:
        facts[person] |= {"born": str(draws.randint(1900, 1980)), "birthplace": draws.choice(names["city"])}
        if draws.random() < 0.8:
            facts[person]["employer"] = draws.choice(names["organisation"])
    for person in people:
        teacher = draws.choice(people)
        if int(facts[teacher]["born"]) + 10 <= int(facts[person]["born"]):
            facts[person]["teacher"] = teacher
    draws.shuffle(people)
    for one, other in zip(people[::2], people[1::2]):
        if draws.random() < 0.7:
            facts[one]["spouse"], facts[other]["spouse"] = other, one


def _organise(draws: Random, names: Mapping[str, Sequence[str]], facts: Mapping[str, Facts]) -> None:
    """Organisations and events: founded and first held when those who did so were grown up."""
    for organisation in names["organisation"]:
        founder = draws.choice(names["person"])
        facts[organisation] |= {
            "founded": str(int(facts[founder]["born"]) + draws.randint(20, 40)),
            "founder": founder,
            "head": draws.choice(names["person"]),
            "seat": draws.choice(names["city"]),
        }
    for event in names["event"]:
        organiser = draws.choice(names["organisation"])
        facts[event] |= {
            "first": str(int(facts[organiser]["founded"]) + draws.randint(1, 20)),
            "organiser": organiser,
            "venue": draws.choice(names["city"]),
            "winner": draws.choice(names["person"]),
        }
