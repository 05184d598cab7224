import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_llm.learning.batch import attention_mask, flatten, micro_batches, pack, span_names
from marl_llm.types import Sample, Span


def sample(tokens: str, start: int, *, episode: str = "e", turn: int = 0, role: str = "r", length: int | None = None):
    """A sequence of letters whose tokens from `start` on were sampled."""
    length = len(tokens) - start if length is None else length
    span = Span(start=start, length=length, logprobs=(-1.0,) * length, advantages=(1.0,) * length, role=role, turn=turn)
    ids = tuple(ord(letter) - ord("a") for letter in tokens)
    return Sample(policy="p", game="g", episode=episode, agent="player_0", tokens=ids, spans=(span,))


def letters(tokens) -> str:
    return "".join(chr(ord("a") + int(token)) for token in tokens)


def test_sequences_that_begin_alike_become_one_tree() -> None:
    (row,) = pack([sample("abcdX", 4), sample("abefX", 4), sample("abegX", 4)], row_tokens=99)
    assert letters(row.tokens) == "abcdefg"  # the last sampled token follows from its predecessor: it is not read
    assert row.depths.tolist() == [0, 1, 2, 3, 2, 3, 3]
    assert row.ends.tolist() == [7, 7, 4, 4, 7, 6, 7]
    assert row.nodes.tolist() == [3, 5, 6]
    assert row.sampled.tolist() == [0, 1, 2]


def test_a_node_sees_its_ancestors_and_itself() -> None:
    (row,) = pack([sample("abcdX", 4), sample("abefX", 4), sample("abegX", 4)], row_tokens=99)
    visible = attention_mask(torch.from_numpy(row.ends)[None], torch.float32)[0, 0] == 0
    seen = {letters(row.tokens[i : i + 1]): letters(row.tokens[visible[i].numpy()]) for i in range(7)}
    assert seen == {"a": "a", "b": "ab", "c": "abc", "d": "abcd", "e": "abe", "f": "abef", "g": "abeg"}


def test_equal_sequences_are_computed_once_and_a_prefix_of_another_costs_nothing() -> None:
    samples = [sample("abcdeX", 5), sample("abX", 2), sample("abcdeY", 5), sample("abcdeX", 5)]
    (row,) = pack(samples, row_tokens=99)
    assert letters(row.tokens) == "abcde"
    assert row.is_chain
    assert row.nodes.tolist() == [1, 4, 4, 4]
    assert row.sampled.tolist() == [1, 0, 2, 3]


def test_a_row_holds_at_most_row_tokens_and_a_longer_sequence_has_its_own() -> None:
    samples = [sample("aab_", 3), sample("aac_", 3), sample("aad_", 3), sample("aazyxwv_", 7)]
    assert [letters(row.tokens) for row in pack(samples, row_tokens=4)] == ["aabc", "aad", "aazyxwv"]


def test_sequences_without_a_common_prefix_do_not_share_a_row() -> None:
    assert [letters(row.tokens) for row in pack([sample("abX", 2), sample("bcX", 2)], row_tokens=99)] == ["ab", "bc"]


def test_a_row_grows_only_while_sharing_saves_more_than_attention_costs() -> None:
    samples = [sample("abbbbbbbX", 8), sample("acccccccX", 8)]  # one shared token of eight; joined: 15^2 - 2 * 8^2 = 97
    assert len(pack(samples, row_tokens=99, keys_per_token=97.5)) == 1
    assert len(pack(samples, row_tokens=99, keys_per_token=96.5)) == 2


def test_samples_without_sampled_tokens_are_skipped() -> None:
    (row,) = pack([sample("zzz", 3), sample("abX", 2)], row_tokens=99)
    assert letters(row.tokens) == "ab"
    assert pack([sample("zzz", 3)], row_tokens=99) == []


def test_flat_vectors_number_turns_by_episode_and_roles_by_name() -> None:
    samples = [
        sample("abcd", 2, episode="x", turn=0, role="first"),
        sample("abc", 2, episode="x", turn=1, role="second"),
        sample("abc", 2, episode="y", turn=0, role="first"),
    ]
    table = flatten(samples)
    assert letters(table.tokens_N) == "cdcc"
    assert table.sequences_N.tolist() == [0, 0, 1, 2]
    assert table.turns_N.tolist() == [0, 0, 1, 2]
    assert table.roles_N.tolist() == [0, 0, 1, 0]
    assert table.episodes_N.tolist() == [0, 0, 0, 1]
    names = [f"episode {e}, agent player_0, turn {t}" for e, t in (("x", 0), ("x", 1), ("y", 0))]
    assert span_names(samples, [0, 1, 3]) == [names[0], names[2]]


def test_micro_batches_respect_the_budget_and_pad_little() -> None:
    rng = np.random.default_rng(0)
    samples = [sample(letters(rng.integers(26, size=n)), n - 3) for n in rng.integers(30, 400, size=200)]
    batches = micro_batches(pack(samples, row_tokens=512), micro_batch_tokens=2048)
    assert max(batch.tokens_BT.numel() for batch in batches) <= 2048
    assert sum(batch.num_nodes for batch in batches) / sum(batch.tokens_BT.numel() for batch in batches) > 0.95
    assert sorted(torch.cat([batch.sampled_M for batch in batches]).tolist()) == list(range(600))


def test_a_row_above_the_budget_is_a_micro_batch_of_its_own() -> None:
    batches = micro_batches(pack([sample("abcdeX", 5), sample("bcX", 2)], row_tokens=99), micro_batch_tokens=3)
    assert [batch.tokens_BT.shape for batch in batches] == [(1, 2), (1, 5)]


sequences = st.lists(st.text(alphabet="ab", min_size=2, max_size=7), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(texts=sequences, row_tokens=st.integers(1, 20), budget=st.integers(1, 40), keys=st.sampled_from([1.0, 9.0, 1e6]))
def test_every_sampled_token_is_predicted_from_exactly_its_own_history(texts, row_tokens, budget, keys) -> None:
    samples = [sample(text, 1 + index % (len(text) - 1)) for index, text in enumerate(texts)]
    histories = [text[:t] for text, s in zip(texts, samples) for t in range(s.spans[0].start, len(text))]
    seen: dict[int, str] = {}
    for batch in micro_batches(pack(samples, row_tokens, keys_per_token=keys), budget):
        width = batch.tokens_BT.shape[1]
        chain_ends = torch.full_like(batch.tokens_BT, width)
        mask = attention_mask(chain_ends if batch.ends_BT is None else batch.ends_BT, torch.float32)[:, 0] == 0
        for flat_index, node in zip(batch.sampled_M.tolist(), batch.nodes_K[batch.visits_M].tolist()):
            line, column = divmod(node, width)
            visible = mask[line, column]
            assert batch.depths_BT[line, visible].tolist() == list(range(int(visible.sum())))
            seen[flat_index] = letters(batch.tokens_BT[line, visible])
    assert [seen[index] for index in range(len(histories))] == histories


@pytest.mark.parametrize("budget", [1, 7, 10_000])
def test_predicting_nodes_are_listed_once_and_ascending(budget: int) -> None:
    samples = [sample("abcdX", 3), sample("abcdY", 3), sample("abceX", 3), sample("baX", 1)]
    for batch in micro_batches(pack(samples, row_tokens=99), budget):
        nodes = batch.nodes_K.tolist()
        assert nodes == sorted(set(nodes))
        assert batch.visits_M.tolist() == sorted(batch.visits_M.tolist())
        assert set(batch.visits_M.tolist()) == set(range(len(nodes)))
