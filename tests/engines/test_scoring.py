from hypothesis import given
from hypothesis import strategies as st

from marl_llm.engines.scoring import Forest, Tree, pack, plant

TOKENS = st.lists(st.integers(0, 2), max_size=5).map(tuple)
PAIRS = st.lists(st.tuples(TOKENS.filter(len), TOKENS), max_size=20)


@given(PAIRS, st.integers(1, 40))
def test_every_continuation_is_planted_once_behind_its_own_prompt(
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]], max_tokens: int
) -> None:
    forests = plant(pairs, max_tokens)
    planted = [(i, (tree.prompt, c)) for f in forests for tree in f.trees for i, c in tree.continuations]
    assert sorted(planted) == [(i, pair) for i, pair in enumerate(pairs) if pair[1]]
    for forest in forests:
        assert len({tree.prompt[: forest.prefix] for tree in forest.trees}) == 1
        assert all(len(tree.prompt) > forest.prefix for tree in forest.trees)
        assert len(forest.trees) == 1 or len(pack(forest).tokens) <= max_tokens


def test_prompts_with_the_same_rules_share_a_forest_and_others_do_not() -> None:
    rules, other = tuple(range(50)), tuple(range(60, 110))
    prompts = [(*rules, i) for i in range(4)] + [(*other, i) for i in range(4)]
    forests = plant([(prompt, (1,)) for prompt in prompts], 4096)
    assert [(forest.prefix, len(forest.trees)) for forest in forests] == [(50, 4), (50, 4)]


def test_a_forest_is_laid_out_as_prompts_and_continuations_without_their_last_tokens() -> None:
    forest = Forest(1, (Tree((9, 1, 2), ((0, (5, 6)), (1, (7,)))), Tree((9, 3), ((2, (4, 4, 8)),))))
    packed = pack(forest)
    assert packed.tokens == [1, 2, 5, 3, 4, 4]
    assert packed.positions == [1, 2, 3, 1, 2, 3]
    assert packed.branches == [[0, 0, 1], [0, 1, 1]]
    assert packed.targets == [5, 6, 7, 4, 4, 8]
    assert packed.predictors == [1, 2, 1, 3, 4, 5]


def test_many_continuations_are_spread_over_copies_of_the_prompt() -> None:
    pairs = [((1, 2, 3), (token,) * 30) for token in range(5)]
    (forest,) = plant(pairs, 4096)
    assert forest.prefix == 2
    assert [len(tree.continuations) for tree in forest.trees] == [2, 2, 1]
