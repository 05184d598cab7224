"""Adapters: alone and on a base that others share, trained, saved, merged and gone on with."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from marl_llm.adapters import load_adapter, merge, read_adapter, shared
from marl_llm.config import Config, LoraConfig, PolicyConfig, WarmupConfig, load_config
from marl_llm.credit.recipe import load_recipe
from marl_llm.engines.hf import HFEngine
from marl_llm.errors import ConfigError, ModelError
from marl_llm.models import LanguageModel, is_adapter, load_model, saved_weights
from marl_llm.players import seat_players
from marl_llm.run import checkpoint_path, read_metrics
from marl_llm.runtime.rollouts import LocalRollouts
from marl_llm.team import Team, check_seats, found
from marl_llm.train import Progress, advance, train
from marl_llm.warmup import warm_up
from tests.learning.test_learner import EMA, make_learner, make_samples
from tests.test_train import SMALL, STATE, Silent, without_time
from tests.tiny import TINY, first_view, untrained

IDS = torch.tensor([[1, 2, 3, 4, 5, 6]])
TINY_YAML = "tiny: {hidden: 32, layers: 1, heads: 2, mlp: 64, vocabulary: 400}, engine: {slots: 16, cache_slots: 8}"
ENGINE = "engine: {slots: 16, cache_slots: 8}"
PLANNER = f"planner: {{trainable: false, {TINY_YAML}, warmup: {{teacher: noisy, games: 32, steps: 8, batch: 32}}}}"
BLACK = (
    f"black: {{base: planner, lora: {{rank: 4}}, {ENGINE}, learner: {{lr: 0.01}}, objective: {{kl: {{reference: ema, "
    "coef: 0.1}}, warmup: {teacher: noisy, games: 16, steps: 2, batch: 16}}"
)
WHITE = f"white: {{base: planner, lora: {{rank: 2, targets: [q_proj, v_proj]}}, {ENGINE}, learner: {{lr: 0.01}}}}"
SEATS = "{player_0: black, player_1: white}"


def roles(
    folder: Path, *overrides: str, policies: tuple[str, ...] = (BLACK, WHITE, PLANNER), seats: str = SEATS
) -> Config:
    """Two roles, each with an adapter on the model of a third policy that was warmed up and is frozen."""
    options = (
        f"run.dir={folder}",
        f"policies={{noisy: {{kind: noisy}}, {', '.join(policies)}}}",
        f"matchmaking.seats={seats}",
        "evaluation={every: 2, games: 2, opponents: [start]}",
    )
    return load_config(SMALL, [*options, *overrides])


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model that can answer."""
    folder = tmp_path_factory.mktemp("talker")
    planner = PLANNER.replace("games: 32, steps: 8, batch: 32", "games: 64, steps: 60, batch: 64, lr: 0.02")
    team = found(config := roles(folder, policies=(planner,), seats="{'*': planner}"))
    assert warm_up(config, team, lambda *_: None)
    team.members["planner"].language_model.save(folder / "model")
    return f"planner: {{trainable: false, model: {folder / 'model'}}}"


def adapted(model: LanguageModel | None = None, *, seed: int = 0, moved: float = 0.0, **lora: object) -> LanguageModel:
    """A model with an adapter whose weights are `moved` away from where they begin."""
    made = (model or untrained()).adapted(LoraConfig(**{"rank": 4} | lora), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.requires_grad:
                parameter.add_(moved * torch.randn(parameter.shape, generator=generator))
    return made


def logprobs(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits.log_softmax(-1)


def copied(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(one[key].equal(two[key]) for key in one)


def owned(model: torch.nn.Module) -> set[int]:
    """Where the tensors lie in memory."""
    return {parameter.data_ptr() for parameter in model.parameters()}


def trained_weights(team: Team, name: str) -> dict[str, torch.Tensor]:
    learner = team.members[name].learner
    assert learner is not None
    return {key: tensor.clone() for key, tensor in learner.weights().items()}


def test_a_new_adapter_changes_nothing_and_adds_rank_times_both_widths() -> None:
    base = untrained()
    model = adapted(base, rank=4)
    assert logprobs(model.model).equal(logprobs(base.model))
    trained = sum(p.numel() for p in model.model.parameters() if p.requires_grad)
    # One layer of width 32 with four square projections and three to or from an inner width of 64.
    assert trained == 4 * (4 * (32 + 32) + 3 * (32 + 64))
    assert owned(base.model) < owned(model.model)


def test_alpha_over_rank_scales_what_an_adapter_adds() -> None:
    base = untrained()
    once, twice = adapted(base, moved=0.1, alpha=4.0), adapted(base, moved=0.1, alpha=8.0)
    plain, one, two = (dict(merge(base.model, m.model).named_parameters()) for m in (adapted(base), once, twice))
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(two[name] - plain[name], 2 * (one[name] - plain[name]), rtol=1e-4, atol=1e-6)
    assert not one[name].equal(plain[name])


def test_targets_are_the_layers_that_are_adapted_and_others_are_refused() -> None:
    model = adapted(targets=["q_proj", "mlp.up_proj"])
    named = {name.split(".lora")[0] for name, p in model.model.named_parameters() if p.requires_grad}
    assert named == {"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"}
    with pytest.raises(ConfigError, match=r"^lora.targets: 'qproj' is not allowed; .*'lm_head', 'o_proj', 'q_proj'"):
        adapted(targets=["q_proj", "qproj"])


def test_merged_weights_say_what_the_adapted_model_says() -> None:
    base = untrained(sharpness=5.0)
    model = adapted(base, moved=0.3)
    before = logprobs(base.model)
    merged = merge(base.model, model.model)
    assert (logprobs(model.model) - before).abs().max() > 0.1
    torch.testing.assert_close(logprobs(merged), logprobs(model.model), rtol=0, atol=1e-4)
    assert logprobs(base.model).equal(before)


@pytest.mark.parametrize("shares", [False, True])
def test_an_engine_says_what_the_adapted_model_says_and_takes_the_adapter_alone(shares: bool) -> None:
    base = untrained(sharpness=5.0)
    first, later = adapted(base, moved=0.3), adapted(base, seed=1, moved=0.3)
    plain = engine_of(base, "base")
    engine = engine_of(first, "a", plain if shares else None)
    prompt, reply = tuple(IDS[0, :3].tolist()), tuple(IDS[0, 3:].tolist())

    def expected(model: LanguageModel) -> list[float]:
        told = logprobs(model.model)[0]
        return [float(told[2 + i, token]) for i, token in enumerate(reply)]

    assert engine.score("a", [(prompt, reply)])[0] == pytest.approx(expected(first), abs=1e-4)
    engine.load_weights("a", make_learner(later.model).weights(), 1)
    assert engine.score("a", [(prompt, reply)])[0] == pytest.approx(expected(later), abs=1e-4)
    assert plain.score("base", [(prompt, reply)])[0] == pytest.approx(expected(base), abs=1e-4)
    both = {p.data_ptr() for p in engine.parameters().values()} & {p.data_ptr() for p in plain.parameters().values()}
    assert len(both) == (len(plain.parameters()) if shares else 0)
    with pytest.raises(ModelError, match=r"missing .*lora_A"):
        engine.load_weights("a", {}, 2)
    if shares:
        with pytest.raises(ModelError, match="unknown"):
            engine.load_weights("a", later.model.state_dict(), 2)


def engine_of(model: LanguageModel, policy: str, beside: HFEngine | None = None) -> HFEngine:
    return HFEngine(
        model.model,
        policy=policy,
        slots=4,
        cache_slots=0,
        context_tokens=40,
        eos_token_id=model.tokenizer.eos_token_id,
        shared=None if beside is None else shared(model.model, beside.parameters()),
    )


def test_training_an_adapter_leaves_the_base_bit_for_bit_and_its_optimizer_and_reference_are_small() -> None:
    base = untrained()
    before = copied(base.model)
    model = adapted(base)
    learner = make_learner(model.model, EMA)
    for seed in range(2):
        learner.update(make_samples(seed))
    assert same(copied(base.model), before)
    assert all("lora_" in name for name in learner.weights())
    tensors, _ = learner.state()
    assert {name.split(".")[0] for name in tensors} == {"optimizer", "reference"}
    assert all("lora_" in name for name in tensors)
    assert not logprobs(model.model).equal(logprobs(base.model))
    assert all(p.grad is None for p in base.model.parameters())


def test_the_reference_of_an_adapter_begins_as_the_base_and_follows() -> None:
    model = adapted()
    learner = make_learner(model.model, EMA)
    assert learner.update(make_samples())["kl"] == pytest.approx(0.0, abs=1e-6)
    assert learner.update(make_samples(1))["kl"] > 0


def test_an_adapters_learner_goes_on_bit_for_bit_and_can_begin_anew(tmp_path: Path) -> None:
    first = adapted(untrained())
    one = make_learner(first.model, EMA)
    one.update(make_samples())
    first.save(tmp_path / "adapter", base="elsewhere")
    one.save_state(tmp_path / "state")
    one.update(make_samples(1))
    second = adapted(untrained(), seed=5)
    load_adapter(second.model, tmp_path / "adapter")
    two = make_learner(second.model, EMA)
    two.load_state(tmp_path / "state")
    two.update(make_samples(1))
    assert same(dict(one.weights()), dict(two.weights()))
    two.restart(saved_weights(tmp_path / "adapter"))
    assert same(dict(two.weights()), read_adapter(tmp_path / "adapter"))
    with pytest.raises(RuntimeError, match="Missing key"):
        two.restart({})


def test_imitation_through_an_adapter_lowers_the_loss() -> None:
    learner = make_learner(adapted(rank=8).model)
    losses = [learner.imitate(make_samples(), 0.01) for _ in range(30)]
    assert losses[-1] < losses[0] - 0.5


def test_an_adapters_folder_is_what_peft_reads_and_loads_merged(tmp_path: Path) -> None:
    base = untrained(sharpness=5.0)
    base.save(tmp_path / "base")
    model = adapted(base, moved=0.3)
    model.save(tmp_path / "adapter", base="../base")
    assert sorted(file.name for file in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    theirs = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    )
    torch.testing.assert_close(logprobs(theirs), logprobs(model.model), rtol=0, atol=1e-5)
    loaded = load_model(tmp_path / "adapter")
    assert loaded.base is None
    torch.testing.assert_close(logprobs(loaded.model), logprobs(model.model), rtol=0, atol=1e-4)


def test_an_adapter_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path) -> None:
    adapted().save(tmp_path / "adapter", base="../nowhere")
    with pytest.raises(ModelError, match=r"model \.\./nowhere: there is no such folder"):
        load_model(tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"adapter .*lora_A.weight does not fit the model"):
        load_adapter(adapted(rank=2).model, tmp_path / "adapter")
    settings = tmp_path / "adapter" / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"use_dora": True}))
    with pytest.raises(ModelError, match="only plain LoRA of linear layers can be used, not use_dora"):
        load_model(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        read_adapter(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": {"base": "b"}}, "policy.lora: None is not allowed; it must be a section, with base: b"),
        ({"a": {"base": "b", "lora": {}, "model": "x"}}, "policy.model: 'x' is not allowed; it must be null"),
        ({"a": {"base": "b", "lora": {}, "tiny": {"hidden": 64}}}, "policy.tiny: 'a section' is not allowed"),
        ({"a": {"kind": "random", "lora": {}}}, "policy.lora: 'a section' is not allowed; it must be null in a policy"),
        (
            {"a": {"kind": "random", "base": "b"}},
            "policy.base: 'b' is not allowed; it must be null in a policy of kind",
        ),
        (
            {"a": {"base": "c", "lora": {}}},
            r"policies.a.base: 'c' is not allowed; it must be one of the policies .*'b'",
        ),
        ({"a": {"base": "a", "lora": {}}}, r"policies.a.base: 'a' is not allowed"),
        ({"a": {"base": "b", "lora": {}}}, r"policies.b.trainable: True is not allowed; .* since a is based on it"),
        (
            {"a": {"base": "b", "lora": {}}, "b": {"lora": {}}, "c": {"base": "a", "lora": {}}},
            r"policies.c.base: 'a' is not allowed",
        ),
        (
            {"a": {"base": "b", "lora": {}, "learner": {"device": "cuda"}}, "b": {"lora": {}}},
            r"policies.a.learner.device: 'cuda' is not allowed; it must be that of b, .*: cpu",
        ),
        (
            {"a": {"base": "b", "lora": {}, "engine": {"kind": "vllm"}}, "b": {"lora": {}}},
            "policies.a.engine: 'vllm' is not allowed; it must be that of b, as one vLLM plays both",
        ),
        ({"a": {"lora": {"rank": 0}}}, "lora.rank: 0 is not allowed"),
        ({"a": {"lora": {"alpha": 0}}}, "lora.alpha: 0.0 is not allowed"),
    ],
)
def test_a_base_that_would_not_stay_as_it_is_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    policies = {"a": {}, "b": {}} | changes
    (tmp_path / "x.yaml").write_text(json.dumps({"policies": policies, "matchmaking": {"seats": {"*": "a"}}}))
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "x.yaml")


def test_a_wrong_target_is_named_with_its_policy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^policies.black.lora.targets: 'query' is not allowed"):
        found(roles(tmp_path, "policies.black.lora.targets=[query]"))


def test_adapters_on_one_base_hold_it_once_and_keep_out_of_each_others_way(tmp_path: Path, talker: str) -> None:
    config = roles(tmp_path, policies=(BLACK, WHITE, talker))
    team = found(config)
    models = {name: member.language_model.model for name, member in team.members.items()}
    assert owned(models["planner"]) == owned(models["black"]) & owned(models["white"])
    engines = [team.members[name].policy.engine.parameters() for name in ("planner", "black", "white")]
    planner, black, white = ({p.data_ptr() for p in engine.values()} for engine in engines)
    assert planner == black & white
    assert warm_up(config, team, lambda *_: None)
    base = copied(models["planner"])
    before = {name: trained_weights(team, name) for name in ("black", "white")}
    metrics, _ = advance(config, team, load_recipe("mars"), LocalRollouts(config, team), Progress(step=0, credit={}))
    after = {name: trained_weights(team, name) for name in ("black", "white")}
    assert same(copied(models["planner"]), base)
    for name in ("black", "white"):
        assert not same(before[name], after[name])
        assert metrics[f"learn/{name}/gap_max"] < 1e-3
    assert after["black"].keys() != after["white"].keys()


def test_what_one_adapter_learns_is_none_of_the_others_business(tmp_path: Path, talker: str) -> None:
    """A step in which only one of two equal adapters learns moves that one alone."""
    twin = f"base: planner, lora: {{rank: 4}}, {ENGINE}"
    black = f"black: {{{twin}, learner: {{lr: 0.05}}}}"
    white = f"white: {{{twin}, learner: {{lr: 0.0}}}}"
    config = roles(tmp_path, policies=(black, white, talker))
    team = found(config)
    before, view = trained_weights(team, "white"), first_view()
    said = team.policies["white"].strategies([view])
    assert said == team.policies["black"].strategies([view]) == team.policies["planner"].strategies([view])
    advance(config, team, load_recipe("mars"), LocalRollouts(config, team), Progress(step=0, credit={}))
    for member in team.members.values():
        member.publish()
    assert same(trained_weights(team, "white"), before)
    assert team.policies["white"].strategies([view]) == said
    assert team.policies["black"].strategies([view]) != said


def test_a_warmed_up_base_that_is_frozen_teaches_its_adapters_first(tmp_path: Path) -> None:
    config = roles(tmp_path)
    told: list[str] = []
    team = found(config)
    before = copied(team.members["planner"].language_model.model)
    assert warm_up(config, team, lambda name, *_: told.append(name))
    assert told == ["planner"] * 8 + ["black"] * 2
    assert team.members["planner"].learner is None
    assert not same(copied(team.members["planner"].language_model.model), before)
    view = first_view()
    planner, white = (team.policies[name].strategies([view])[0] for name in ("planner", "white"))
    assert planner == white, "white was not warmed up, and its adapter changes nothing yet"
    assert team.policies["black"].strategies([view])[0] != planner


def test_an_engine_with_a_copy_of_the_base_plays_with_what_the_base_was_taught(tmp_path: Path) -> None:
    config = roles(tmp_path, "policies.white.engine.dtype=bfloat16")
    team = found(config)
    assert warm_up(config, team, lambda *_: None)
    white = team.members["white"]
    engine = white.policy.engine
    assert isinstance(engine, HFEngine)
    taught = dict(white.language_model.model.named_parameters())
    for name, parameter in engine.parameters().items():
        assert parameter.equal(taught[name].to(torch.bfloat16)), name


SHORT = (
    "run.steps=4",
    "evaluation.every=0",
    "evaluation.exploitability=false",
    "policies.planner.warmup.steps=60",
    "policies.planner.warmup.lr=0.02",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(roles(tmp_path_factory.mktemp("runs"), *SHORT), Silent())


def test_a_checkpoint_holds_adapters_alone_beside_one_base(finished: Path) -> None:
    folder = checkpoint_path(finished, 4)
    assert is_adapter(folder / "black")
    assert not (folder / "black" / "model.safetensors").exists()
    small = load_file(folder / "white" / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in small.values()) == 2 * 2 * (32 + 32)
    (state,) = (folder / "white-learner").glob("*.safetensors")
    assert all("lora_" in name for name in load_file(state))
    first = load_file(checkpoint_path(finished, 0) / "planner" / "model.safetensors")
    assert same(first, load_file(folder / "planner" / "model.safetensors"))
    assert all(math.isfinite(row["learn/white/loss"]) for row in read_metrics(finished))


def test_a_run_with_adapters_that_was_stopped_goes_on_bit_for_bit(finished: Path, tmp_path: Path) -> None:
    config = roles(tmp_path, *SHORT)
    seen = Silent()
    path = train(config, seen, stop=lambda: "step 1" in seen.told)
    assert len(read_metrics(path)) == 1
    train(config, Silent(), path=path, resume=True)
    clocks = ("learn/black/model_s", "learn/white/model_s")
    one, two = (
        [{k: v for k, v in row.items() if k not in clocks} for row in without_time(read_metrics(p))]
        for p in (finished, path)
    )
    assert one == two
    for name in ("black", "white"):
        for file in (f"{name}/adapter_model.safetensors", f"{name}-learner/{STATE}"):
            assert same(load_file(checkpoint_path(finished, 4) / file), load_file(checkpoint_path(path, 4) / file)), (
                file
            )


def test_who_has_an_adapter_sits_in_tournaments_and_other_runs(finished: Path, tmp_path: Path) -> None:
    config = roles(tmp_path)
    own = found(config, checkpoint_path(finished, 4), learn=False).policies["black"].strategies([first_view()])[0]
    seated = seat_players([f"run:{finished}", "random"], config.games["game"])
    (strategy,) = seated[f"run:{finished}"].strategies([first_view()])
    assert strategy.actions == pytest.approx(own.actions, abs=1e-4)


def test_an_adapter_on_a_model_of_its_own_is_saved_with_it_or_names_it(tmp_path: Path) -> None:
    lora = PolicyConfig(tiny=TINY, lora=LoraConfig(rank=2))
    config = roles(tmp_path)
    made = replace(config, policies={"agent": lora}, matchmaking=replace(config.matchmaking, seats={"*": "agent"}))
    made = replace(made, evaluation=replace(made.evaluation, opponents=[]))
    team = found(made)
    team.save(tmp_path / "first")
    assert (tmp_path / "first" / "agent" / "base" / "model.safetensors").is_file()
    again = found(made, tmp_path / "first")
    assert same(copied(team.members["agent"].language_model.model), copied(again.members["agent"].language_model.model))
    untrained().save(tmp_path / "model")
    given = replace(made, policies={"agent": replace(lora, model=str(tmp_path / "model"))})
    team = found(given)
    team.save(tmp_path / "second")
    assert sorted(file.name for file in (tmp_path / "second" / "agent").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    torch.testing.assert_close(
        logprobs(load_model(tmp_path / "second" / "agent").model), logprobs(team.members["agent"].language_model.model)
    )


def test_a_model_that_was_loaded_and_stays_as_it_is_is_not_written_again(tmp_path: Path) -> None:
    untrained().save(tmp_path / "model")
    config = roles(tmp_path)
    frozen = PolicyConfig(model=str(tmp_path / "model"), trainable=False)
    still = replace(config, policies={"black": PolicyConfig(tiny=TINY), "white": frozen})
    still = replace(still, evaluation=replace(still.evaluation, opponents=[]))
    team = found(still)
    team.save(tmp_path / "saved")
    assert sorted(file.name for file in (tmp_path / "saved").iterdir()) == ["black", "black-learner"]
    again = found(still, tmp_path / "saved", learn=False)
    assert same(copied(again.members["white"].language_model.model), copied(team.members["white"].language_model.model))
    warmed = replace(frozen, warmup=WarmupConfig(teacher="noisy"))
    warm = replace(still, policies={**still.policies, "white": warmed, "noisy": PolicyConfig(kind="noisy")})
    found(warm).save(tmp_path / "warm")
    assert (tmp_path / "warm" / "white" / "model.safetensors").is_file()


def test_a_league_meets_snapshots_of_adapters(tmp_path: Path) -> None:
    path = train(
        roles(
            tmp_path,
            "run.steps=4",
            "policies.white.warmup=null",
            "matchmaking.groups=8",
            "matchmaking.league={every: 2, exploiters: {white: {reset_every: 2}}}",
            "evaluation.games=0",
            seats="{'*': black}",
        ),
        Silent(),
    )
    names = sorted(folder.name for folder in (path / "league").iterdir())
    assert names == ["black@0", "black@2", "black@4", "white@2", "white@4"]
    folder = path / "league" / "black@4"
    assert is_adapter(folder)
    one, two = load_model(folder), load_model(checkpoint_path(path, 4) / "black")
    assert same(copied(one.model), copied(two.model))
    white = read_adapter(checkpoint_path(path, 4) / "white")
    assert same(white, read_adapter(checkpoint_path(path, 0) / "white")), "it began anew after step 4"
    assert not same(white, read_adapter(path / "league" / "white@4"))


def test_a_base_needs_no_seat(tmp_path: Path) -> None:
    check_seats(roles(tmp_path))
