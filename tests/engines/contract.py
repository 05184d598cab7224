"""The contract of every engine, as checks that take a `Bench`: how to make the engine, and the plain model beside it.

`tests/engines/test_hf.py` runs them for `hf`; another engine runs the same list.
"""

import math
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from transformers import PreTrainedModel

from marl_llm.engines.base import Engine, Request
from marl_llm.types import Completion, Tokens

POLICY = "team"
TOLERANCE = 1e-4
"""Of log-probabilities in float32, in nats."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What the checks need to know of an engine."""

    make: Callable[..., Engine]
    """`make(model, slots=, context_tokens=)` gives an engine with the one policy `POLICY`, at version 0."""
    model: Callable[[int], PreTrainedModel]
    """A tiny model by seed; all have the same architecture."""
    vocab: int
    """Size of the vocabulary."""
    eos: int
    """The end token that `make` tells the engine."""


def request(ticket: Hashable, prompt: Tokens, *, tokens: int = 8, seed: int = 0, temperature: float = 1.0) -> Request:
    return Request(ticket=ticket, policy=POLICY, prompt=prompt, max_tokens=tokens, seed=seed, temperature=temperature)


def play(engine: Engine, requests: Iterable[Request]) -> dict[Hashable, Completion]:
    """Submit everything at once and poll until all is done."""
    open_tickets = set()
    for one in requests:
        engine.submit(one)
        open_tickets.add(one.ticket)
    done: dict[Hashable, Completion] = {}
    while open_tickets - done.keys():
        done.update(engine.poll())
    return done


def words(bench: Bench, count: int, seed: int) -> Tokens:
    rng = random.Random(seed)
    return tuple(rng.choice([t for t in range(bench.vocab) if t != bench.eos]) for _ in range(count))


def plain_logprobs(model: PreTrainedModel, prompt: Tokens, tokens: Tokens, temperature: float = 1.0) -> list[float]:
    """The reference: one teacher-forced pass of the plain model."""
    with torch.inference_mode():
        logits_TV = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    logprobs_TV = (logits_TV / temperature).log_softmax(-1)
    return logprobs_TV[torch.arange(len(tokens)), list(tokens)].tolist()


def assert_plain(model: PreTrainedModel, asked: Request, completion: Completion) -> None:
    expected = plain_logprobs(model, asked.prompt, completion.tokens, asked.temperature)
    assert completion.logprobs == pytest.approx(expected, abs=TOLERANCE)


def logprobs_are_those_of_a_teacher_forced_pass(bench: Bench) -> None:
    model = bench.model(0)
    engine = bench.make(model, slots=4, context_tokens=120)
    asked = [
        request(i, words(bench, length, i), seed=i, temperature=temperature)
        for i, (length, temperature) in enumerate([(1, 1.0), (2, 0.7), (37, 1.0), (18, 0.7), (5, 1.5), (100, 1.0)])
    ]
    done = play(engine, asked)
    for one in asked:
        assert_plain(model, one, done[one.ticket])
        assert len(done[one.ticket].tokens) == len(done[one.ticket].logprobs) == len(done[one.ticket].versions)


def logprobs_hold_over_the_turns_of_groups_that_share_a_prompt(bench: Bench) -> None:
    model = bench.model(0)
    engine = bench.make(model, slots=6, context_tokens=120)
    conversations = {(g, i): words(bench, 30 + g, g) for g in range(2) for i in range(4)}
    for turn in range(3):
        asked = [
            request(key, prompt, seed=8 * turn + i, temperature=0.7 if turn == 1 else 1.0)
            for i, (key, prompt) in enumerate(conversations.items())
        ]
        done = play(engine, asked)
        for one in asked:
            assert_plain(model, one, done[one.ticket])
            said = (*one.prompt, *done[one.ticket].tokens)
            conversations[one.ticket] = (*said, *words(bench, 1 + turn, len(said)))  # type: ignore[index]


def prompts_that_leave_an_earlier_sequence_midway_are_read_right(bench: Bench) -> None:
    model = bench.model(0)
    engine = bench.make(model, slots=3, context_tokens=120)
    rules = words(bench, 40, 0)
    for seed in range(12):
        cut = (40, 25, 39, 1)[seed % 4]
        one = request(seed, (*rules[:cut], *words(bench, seed % 3, seed + 1)), seed=seed)
        assert_plain(model, one, play(engine, [one])[seed])


def score_is_a_teacher_forced_pass(bench: Bench) -> None:
    model = bench.model(0)
    engine = bench.make(model, slots=2, context_tokens=120)
    rules = words(bench, 30, 0)
    prompts = [(*rules, *words(bench, length, length)) for length in (1, 2, 5, 9)] + [words(bench, 3, 7), rules, rules]
    pairs = [
        (prompt, words(bench, length, 10 * i + length)) for i, prompt in enumerate(prompts) for length in (4, 1, 0, 6)
    ]
    random.Random(0).shuffle(pairs)
    for temperature in (1.0, 0.7):
        scores = engine.score(POLICY, pairs, temperature)
        assert len(scores) == len(pairs)
        for (prompt, tokens), logprobs in zip(pairs, scores):
            assert logprobs == pytest.approx(plain_logprobs(model, prompt, tokens, temperature), abs=TOLERANCE)
    assert engine.score(POLICY, []) == []


def score_agrees_with_sampling_and_leaves_it_alone(bench: Bench) -> None:
    model = bench.model(0)
    asked = [request(i, words(bench, 20 + i, i), seed=i, temperature=0.7) for i in range(5)]
    undisturbed = play(bench.make(model, slots=3, context_tokens=60), asked)
    engine = bench.make(model, slots=3, context_tokens=60)
    for one in asked:
        engine.submit(one)
    done: dict[Hashable, Completion] = {}
    while len(done) < len(asked):
        done.update(engine.poll())
        engine.score(POLICY, [(words(bench, 20, 0), (1, 2)), (words(bench, 9, 4), (3,))])
    assert {t: c.tokens for t, c in done.items()} == {t: c.tokens for t, c in undisturbed.items()}
    scores = engine.score(POLICY, [(one.prompt, done[one.ticket].tokens) for one in asked], 0.7)
    for one, logprobs in zip(asked, scores):
        assert logprobs == pytest.approx(done[one.ticket].logprobs, abs=TOLERANCE)


def a_seed_gives_the_same_tokens_in_any_company(bench: Bench) -> None:
    model = bench.model(0)
    prompt = words(bench, 12, 0)
    alone = play(bench.make(model, slots=1, context_tokens=60), [request("a", prompt, seed=5)])["a"]
    crowd = [request(i, words(bench, 1 + i, i), seed=i) for i in range(9)]
    engine = bench.make(model, slots=4, context_tokens=60)
    among = play(engine, [*crowd, request("a", prompt, seed=5)])["a"]
    again = play(engine, [request("a", prompt, seed=5), *crowd])["a"]
    assert alone.tokens == among.tokens == again.tokens
    assert alone.logprobs == pytest.approx(among.logprobs, abs=TOLERANCE)


def seeds_differ(bench: Bench) -> None:
    engine = bench.make(bench.model(0), slots=8, context_tokens=60)
    done = play(engine, [request(i, words(bench, 5, 0), seed=i) for i in range(8)])
    assert len({completion.tokens for completion in done.values()}) == 8


def stops_have_their_reasons(bench: Bench) -> None:
    engine = bench.make(bench.model(0), slots=40, context_tokens=20)
    done = play(engine, [request(i, words(bench, 4, i % 3), tokens=1 + i % 40, seed=i) for i in range(80)])
    seen = set()
    for i, completion in done.items():
        tokens, limit = completion.tokens, 1 + i % 40  # type: ignore[operator]
        seen.add(completion.stop)
        assert bench.eos not in tokens[:-1]
        if completion.stop == "eos":
            assert tokens[-1] == bench.eos
        elif completion.stop == "length":
            assert len(tokens) == limit
        else:
            assert len(tokens) == 16 < limit
    assert seen == {"eos", "length", "context"}


def weights_are_swapped_between_polls(bench: Bench) -> None:
    old, new = bench.model(0), bench.model(1)
    engine = bench.make(old, slots=3, context_tokens=80)
    prompt = words(bench, 30, 0)
    play(engine, [request("before", prompt)])
    crossing = [request(f"crossing {i}", (*prompt, i), tokens=40, seed=i) for i in range(3)]
    for one in crossing:
        engine.submit(one)
    early = [done for _ in range(3) for done in engine.poll()]
    engine.load_weights(POLICY, new.state_dict(), version=7)
    late = [request(i, (*prompt, *range(i)), seed=i) for i in range(4)]
    done = {**dict(early), **play(engine, late)}
    while not all(one.ticket in done for one in crossing):
        done.update(engine.poll())
    assert any(set(done[one.ticket].versions) == {0, 7} for one in crossing)
    for one in crossing:
        completion = done[one.ticket]
        by_old = completion.versions.count(0)
        assert completion.versions == (0,) * by_old + (7,) * (len(completion.tokens) - by_old)
        expected = plain_logprobs(old, one.prompt, completion.tokens[:by_old])
        assert completion.logprobs[:by_old] == pytest.approx(expected, abs=TOLERANCE)
    for one in late:
        assert set(done[one.ticket].versions) == {7}
        assert_plain(new, one, done[one.ticket])
    pair = (prompt, words(bench, 5, 1))
    assert engine.score(POLICY, [pair])[0] == pytest.approx(plain_logprobs(new, *pair), abs=TOLERANCE)


def wrong_weights_are_refused_and_change_nothing(bench: Bench) -> None:
    model = bench.model(0)
    engine = bench.make(model, slots=2, context_tokens=60)
    good = bench.model(1).state_dict()
    name = next(iter(good))
    for bad in (
        {**good, "no.such.weight": good[name]},
        {key: value for key, value in good.items() if key != name and value is not good[name] and "norm" not in key},
        {**good, name: good[name][:-1]},
    ):
        with pytest.raises(ValueError, match=r"weight"):
            engine.load_weights(POLICY, bad, version=1)
    with pytest.raises(ValueError, match="policy"):
        engine.load_weights("nobody", good, version=1)
    one = request("a", words(bench, 5, 0))
    completion = play(engine, [one])["a"]
    assert set(completion.versions) == {0}
    assert_plain(model, one, completion)


def many_ragged_requests_share_few_slots(bench: Bench) -> None:
    model = bench.model(0)
    engine = bench.make(model, slots=3, context_tokens=80)
    asked = [request(i, words(bench, 1 + 7 * i % 50, i % 5), tokens=1 + i % 5, seed=i) for i in range(40)]
    done = play(engine, asked)
    assert len(done) == 40
    for one in asked:
        assert_plain(model, one, done[one.ticket])
    assert engine.poll() == []


def tokens_come_as_often_as_their_probability(bench: Bench) -> None:
    model = bench.model(0)
    engine = bench.make(model, slots=500, context_tokens=60)
    prompt, draws = words(bench, 6, 0), 1500
    for temperature in (1.0, 0.5):
        done = play(
            engine, [request(i, prompt, tokens=1, seed=10_000 + i, temperature=temperature) for i in range(draws)]
        )
        counts = torch.zeros(bench.vocab)
        for completion in done.values():
            counts[completion.tokens[0]] += 1
        logprobs = [plain_logprobs(model, prompt, (token,), temperature)[0] for token in range(bench.vocab)]
        expected = torch.tensor(logprobs).exp() * draws
        usual = expected >= 5
        statistic = ((counts - expected)[usual] ** 2 / expected[usual]).sum().item()
        freedom = int(usual.sum())
        # Five standard deviations of chi-square: the seeds are fixed, so this either always passes or never.
        assert statistic < freedom + 5 * (2 * freedom) ** 0.5


def impossible_requests_are_refused(bench: Bench) -> None:
    engine = bench.make(bench.model(0), slots=2, context_tokens=20)
    good = request("a", words(bench, 19, 0))
    engine.submit(good)
    bad: Sequence[tuple[Request, str]] = (
        (good, "in flight"),
        (request("b", words(bench, 20, 0)), "room"),
        (request("b", ()), "room"),
        (request("b", (1,), tokens=0), "max_tokens"),
        (request("b", (1,), temperature=-0.1), "temperature"),
        (request("b", (1,), temperature=math.inf), "temperature"),
        (request("b", (1,), seed=-1), "seed"),
        (Request(ticket="b", policy="nobody", prompt=(1,), max_tokens=1, seed=0), "policy"),
    )
    for one, message in bad:
        with pytest.raises(ValueError, match=message):
            engine.submit(one)
    for pair in (((), (1,)), (words(bench, 19, 0), (1, 1))):
        with pytest.raises(ValueError, match="scored"):
            engine.score(POLICY, [pair])
        with pytest.raises(ValueError, match="scored"):
            engine.best(POLICY, [pair])
    with pytest.raises(ValueError, match="temperature must be more than 0"):
        engine.score(POLICY, [((1,), (1,))], 0.0)
    for ask in (engine.score, engine.best):
        with pytest.raises(ValueError, match="policy"):
            ask("nobody", [])
    done = play(engine, [])
    while not done:
        done.update(engine.poll())
    assert len(done["a"].tokens) == 1
    play(engine, [good])


def at_temperature_0_the_most_probable_token_is_taken(bench: Bench) -> None:
    model = bench.model(0)
    engine = bench.make(model, slots=4, context_tokens=60)
    asked = [request(i, words(bench, 4 + i, i), seed=i, temperature=float(i % 2), tokens=12) for i in range(8)]
    done = play(engine, asked)
    again = play(engine, [request(i, asked[i].prompt, seed=99, temperature=0.0, tokens=12) for i in (0, 2, 4, 6)])
    for i, completion in again.items():
        assert completion.tokens == done[i].tokens
        read = (*asked[i].prompt, *completion.tokens)  # type: ignore[call-overload]
        with torch.inference_mode():
            logits_TV = model(input_ids=torch.tensor([read])).logits[0, len(read) - len(completion.tokens) - 1 : -1]
        assert completion.tokens == tuple(logits_TV.argmax(-1).tolist())
        assert completion.logprobs == pytest.approx(logits_TV.log_softmax(-1).max(-1).values.tolist(), abs=TOLERANCE)
    drawn = [request(i, asked[i].prompt, temperature=0.0, tokens=12) for i in (1, 3, 5, 7)]
    assert all(completion.tokens != done[i].tokens for i, completion in play(engine, drawn).items())


def best_is_the_most_probable_token_at_each_place(bench: Bench) -> None:
    model = bench.model(0)
    engine = bench.make(model, slots=2, context_tokens=60)
    pairs = [(words(bench, length, length), words(bench, 6, length + 1)) for length in (1, 5, 9)]
    pairs.append((pairs[0][0], ()))
    for temperature in (1.0, 0.7):
        best = engine.best(POLICY, pairs, temperature)
        assert [len(found) for found in best] == [6, 6, 6, 0]
        for (prompt, tokens), found in zip(pairs[:3], best):
            with torch.inference_mode():
                logits_TV = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
            logprobs_TV = (logits_TV / temperature).log_softmax(-1)
            assert [token for token, _ in found] == logprobs_TV.argmax(-1).tolist()
            assert [logprob for _, logprob in found] == pytest.approx(
                logprobs_TV.max(-1).values.tolist(), abs=TOLERANCE
            )
    greedy = play(engine, [request("a", pairs[0][0], temperature=0.0)])["a"].tokens
    (scored,), (found,) = engine.score(POLICY, [(pairs[0][0], greedy)]), engine.best(POLICY, [(pairs[0][0], greedy)])
    assert tuple(token for token, _ in found) == greedy
    assert tuple(logprob for _, logprob in found) == scored


def long_requests(bench: Bench, engine: Engine, count: int) -> list[Request]:
    """Requests that sample some tokens before they end."""
    asked = [request(i, words(bench, 9, i), seed=i, tokens=30) for i in range(30)]
    done = play(engine, asked)
    return [one for one in asked if len(done[one.ticket].tokens) > 5][:count]


def what_is_sampled_so_far_can_be_asked(bench: Bench) -> None:
    engine = bench.make(bench.model(0), slots=1, context_tokens=60)
    first, second = long_requests(bench, engine, 2)
    engine.submit(replace(first, ticket=0))
    engine.submit(replace(second, ticket=1))
    assert engine.sampled(0) == engine.sampled(1) == ()
    told: list[Tokens] = []
    done: dict[Hashable, Completion] = {}
    while not done:
        done.update(engine.poll())
        if not done:
            told.append(engine.sampled(0))
            assert engine.sampled(1) == ()
    assert len(told) > 3
    assert all(done[0].tokens[: len(tokens)] == tokens for tokens in told)
    assert [len(tokens) for tokens in told] == list(range(1, len(told) + 1))
    with pytest.raises(ValueError, match="not in flight"):
        engine.sampled(0)


def a_cancelled_request_leaves_its_slot_and_never_comes_out(bench: Bench) -> None:
    model = bench.model(0)
    engine = bench.make(model, slots=1, context_tokens=60)
    (one,) = long_requests(bench, engine, 1)
    first, waiting, last = (replace(one, ticket=i) for i in range(3))
    for one in (first, waiting, last):
        engine.submit(one)
    engine.poll()
    engine.poll()
    assert len(engine.sampled(0)) >= 1
    engine.cancel(0)
    engine.cancel(1)
    done = play(engine, [])
    while not done:
        done.update(engine.poll())
    assert list(done) == [2]
    assert_plain(model, last, done[2])
    assert engine.poll() == []
    for ticket in (0, 1, 2, "never"):
        with pytest.raises(ValueError, match="not in flight"):
            engine.cancel(ticket)
    assert play(engine, [first])[0].tokens == done[2].tokens


MODEL_CHECKS = (
    logprobs_are_those_of_a_teacher_forced_pass,
    logprobs_hold_over_the_turns_of_groups_that_share_a_prompt,
    prompts_that_leave_an_earlier_sequence_midway_are_read_right,
    score_is_a_teacher_forced_pass,
    weights_are_swapped_between_polls,
)
"""What depends on the architecture of the model."""

CHECKS = (
    *MODEL_CHECKS,
    score_agrees_with_sampling_and_leaves_it_alone,
    a_seed_gives_the_same_tokens_in_any_company,
    seeds_differ,
    stops_have_their_reasons,
    wrong_weights_are_refused_and_change_nothing,
    many_ragged_requests_share_few_slots,
    tokens_come_as_often_as_their_probability,
    impossible_requests_are_refused,
    at_temperature_0_the_most_probable_token_is_taken,
    best_is_the_most_probable_token_at_each_place,
    what_is_sampled_so_far_can_be_asked,
    a_cancelled_request_leaves_its_slot_and_never_comes_out,
)
"""Every check of the contract."""
