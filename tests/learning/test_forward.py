import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from marl_llm.errors import ModelError
from marl_llm.learning.batch import MicroBatch, flatten, micro_batches, pack
from marl_llm.learning.forward import Trunk, check_model, keys_per_token, token_values
from marl_llm.types import Sample, Span

SIZE = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Conversations that share prefixes, with two sampled turns each, some of them equal and some unrelated."""
    rng = np.random.default_rng(0)
    rules = rng.integers(20, size=6).tolist()
    made = []
    for index in range(14):
        tokens = [*(rules if index % 4 else []), *rng.integers(3, size=rng.integers(5, 9)).tolist()]
        starts = ((0, 2), (2, len(tokens) - 2))
        spans = tuple(Span(start=start, length=2, role="a", turn=turn) for turn, start in starts)
        made.append(Sample(policy="p", game="g", episode=f"e{index}", agent="x", tokens=tuple(tokens), spans=spans))
    return [*made, made[1], made[0]]


def packed_logprobs(model, samples, *, row_tokens=40, budget=60, keys=1e6, **settings) -> torch.Tensor:
    tokens_N = flatten(samples).tokens_N
    parts, order = [], []
    for batch in micro_batches(pack(samples, row_tokens, keys_per_token=keys), budget):
        values = token_values(Trunk(model), batch, tokens_N[batch.sampled_M], **{"temperature": 1.0} | settings)
        parts.append(values.logprobs_M)
        order.append(batch.sampled_M)
    return torch.cat(parts)[torch.cat(order).argsort()]


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_packed_logprobs_and_gradients_are_those_of_separate_sequences(
    make_model, separate_logprobs, samples, tied
) -> None:
    model = make_model(tied=tied).double()
    weights_N = torch.linspace(-1, 2, len(flatten(samples).tokens_N), dtype=torch.float64)
    expected_N = separate_logprobs(model, samples, temperature=0.7)
    (weights_N @ expected_N).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    logprobs_N = packed_logprobs(model, samples, temperature=0.7)
    (weights_N @ logprobs_N).backward()
    torch.testing.assert_close(logprobs_N, expected_N, rtol=1e-6, atol=1e-6)  # the model's norms are in float32
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-5)


def test_the_packing_of_these_samples_has_branches_and_padding(samples) -> None:
    batches = micro_batches(pack(samples, 40, keys_per_token=1e6), 60)
    assert any(batch.ends_BT is not None for batch in batches)
    assert any(batch.num_nodes < batch.tokens_BT.numel() for batch in batches)


def in_one_row(batches) -> MicroBatch:
    """Several rows behind each other, as trees of one row."""
    (tokens, depths, ends, nodes, visits, sampled), place, known = ([[] for _ in range(6)]), 0, 0
    for batch in batches:
        assert batch.ends_BT is None
        assert len(batch.tokens_BT) == 1
        length = batch.tokens_BT.shape[1]
        tokens.append(batch.tokens_BT)
        depths.append(batch.depths_BT)
        ends.append(torch.full((1, length), place + length))
        nodes.append(batch.nodes_K + place)
        visits.append(batch.visits_M + known)
        sampled.append(batch.sampled_M)
        place, known = place + length, known + len(batch.nodes_K)
    return MicroBatch(
        tokens_BT=torch.cat(tokens, dim=1),
        depths_BT=torch.cat(depths, dim=1),
        ends_BT=torch.cat(ends, dim=1),
        nodes_K=torch.cat(nodes),
        visits_M=torch.cat(visits),
        sampled_M=torch.cat(sampled),
        num_nodes=place,
    )


def test_unrelated_long_sequences_behind_each_other_in_a_row_do_not_see_each_other(
    make_model, separate_logprobs
) -> None:
    """The mask of ancestors is then one of blocks on the diagonal."""
    rng, samples = np.random.default_rng(0), []
    for index, length in enumerate((700, 31, 450, 2, 260)):
        span = Span(start=length // 2, length=length - length // 2, role="a", turn=0)
        tokens = tuple(rng.integers(20, size=length).tolist())
        samples.append(Sample(policy="p", game="g", episode=f"e{index}", agent="x", tokens=tokens, spans=(span,)))
    batch = in_one_row(micro_batches(pack(samples, row_tokens=1), micro_batch_tokens=1))
    assert batch.tokens_BT.shape == (1, 700 + 31 + 450 + 2 + 260 - 5)
    model, other = make_model(), make_model()
    tokens_N = flatten(samples).tokens_N
    weights_M = torch.linspace(-1, 2, len(tokens_N))[batch.sampled_M]
    values = token_values(Trunk(model), batch, tokens_N[batch.sampled_M], temperature=1.0)
    (weights_M @ values.logprobs_M).backward()
    expected_M = separate_logprobs(other, samples)[batch.sampled_M]
    (weights_M @ expected_M).backward()
    torch.testing.assert_close(values.logprobs_M, expected_M, rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-3 * theirs.grad.abs().max().item())


@pytest.mark.parametrize(
    "make",
    [
        lambda: LlamaForCausalLM(LlamaConfig(**SIZE, num_key_value_heads=1)),
        lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZE)),
    ],
    ids=["llama", "gpt_neox"],
)
def test_other_architectures_agree_too(make, separate_logprobs, samples) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
    check_model(model)
    torch.testing.assert_close(packed_logprobs(model, samples), separate_logprobs(model, samples))


def test_eager_attention_honours_the_mask_as_well(make_model, separate_logprobs, samples) -> None:
    model = make_model(attn_implementation="eager")
    check_model(model)
    torch.testing.assert_close(packed_logprobs(model, samples), separate_logprobs(model, samples))


def test_computing_the_head_in_chunks_changes_nothing(make_model, samples) -> None:
    model, reference = make_model(), make_model(seed=1)
    tokens_N = flatten(samples[1:4]).tokens_N
    (batch,) = micro_batches(pack(samples[1:4], row_tokens=1000), 10**6)
    results = []
    for logit_tokens in (None, 3, 1):
        model.zero_grad()
        values = token_values(
            Trunk(model),
            batch,
            tokens_N[batch.sampled_M],
            temperature=0.7,
            reference=Trunk(reference),
            full_kl=True,
            entropy_gradient=True,
            logit_tokens=logit_tokens,
        )
        assert values.kl_M is not None
        (values.logprobs_M.sum() + 2 * values.entropy_M.sum() + 3 * values.kl_M.sum()).backward()
        results.append((values.logprobs_M, values.entropy_M, values.kl_M, model.lm_head.weight.grad.clone()))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


def test_entropy_and_full_kl_are_those_of_the_whole_distributions(make_model) -> None:
    model, reference = make_model(), make_model(seed=1)
    span = Span(start=2, length=1, role="r", turn=0)
    sample = Sample(policy="p", game="g", episode="e", agent="x", tokens=(1, 2, 3), spans=(span,))
    (batch,) = micro_batches(pack([sample], row_tokens=9), 9)
    values = token_values(
        Trunk(model), batch, torch.tensor([3]), temperature=0.5, reference=Trunk(reference), full_kl=True
    )
    with torch.no_grad():
        p, q = (torch.softmax(m(torch.tensor([[1, 2]])).logits[0, -1] / 0.5, -1) for m in (model, reference))
    assert values.kl_M is not None
    assert values.reference_M is not None
    assert values.kl_M.item() == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-4)
    assert values.entropy_M.item() == pytest.approx(-(p * p.log()).sum().item(), rel=1e-4)
    assert values.reference_M.item() == pytest.approx(q[3].log().item(), rel=1e-4)
    assert values.kl_M.requires_grad
    assert not values.entropy_M.requires_grad
    assert not values.reference_M.requires_grad


def test_attention_is_weighed_by_the_size_of_the_layers(make_model) -> None:
    # per layer: query and output 2 * 16 * 32, key and value 2 * 16 * 16, three of 16 * 24, norms 16 + 16 + 8 + 8;
    # a key costs 2 * 32; the last norm adds 16
    assert keys_per_token(make_model()) == (2 * (1024 + 512 + 1152 + 48) + 16) / (2 * 2 * 32)


def test_sliding_windows_capped_logits_and_attention_without_masks_are_refused(make_model) -> None:
    with pytest.raises(ModelError, match="sliding_attention"):
        check_model(make_model(layer_types=["full_attention", "sliding_attention"], sliding_window=4))
    gemma = Gemma2ForCausalLM(Gemma2Config(**SIZE, head_dim=8, layer_types=["full_attention"] * 2))
    with pytest.raises(ModelError, match="final_logit_softcapping"):
        check_model(gemma)
    model = make_model()
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ModelError, match="flash_attention_2"):
        check_model(model)


def test_a_model_whose_logits_are_not_the_heads_is_refused(make_model) -> None:
    model = make_model()
    model.lm_head.register_forward_hook(lambda module, inputs, output: output * 2 if output.dim() == 3 else output)
    with pytest.raises(ModelError, match="the head"):
        check_model(model)
