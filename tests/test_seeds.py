"""Derived seeds: the same everywhere, and different wherever a draw is another."""

import pytest

from marl_llm.seeds import derive, generator


def test_seeds_are_the_same_on_every_machine() -> None:
    # hashlib.blake2b(b"int:0\x1fstr:train\x1fint:7", digest_size=8), the top 63 bits.
    assert derive(0, "train", 7) == 416978879827915683
    assert (
        generator(0, "train", 7).integers(1000, size=3).tolist()
        == generator(0, "train", 7).integers(1000, size=3).tolist()
    )


def test_place_order_and_type_of_the_parts_matter() -> None:
    different = [
        (),
        (0,),
        (1,),
        ("0",),
        (0, 0),
        (0, 1),
        (1, 0),
        ("a", "b"),
        ("b", "a"),
        ("ab",),
        ("", "ab"),
        ("a\x1fstr:b",),
    ]
    assert len({derive(*parts) for parts in different}) == len(different) - 1


@pytest.mark.parametrize("count", [1000])
def test_seeds_fit_63_bits_and_fill_them(count: int) -> None:
    seeds = [derive("x", number) for number in range(count)]
    assert len(set(seeds)) == count
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    high = sum(seed >= 2**62 for seed in seeds)
    low = sum(seed % 2 for seed in seeds)
    assert 400 < high < 600
    assert 400 < low < 600


def test_generators_of_two_places_draw_differently() -> None:
    assert generator("a", 0).random() != generator("a", 1).random()
