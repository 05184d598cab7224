"""The forecast: counts by hand, tokens against what is played, and what does not fit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from marl_llm import cli
from marl_llm.config import Config, EngineConfig, KLConfig, LearnerConfig, ObjectiveConfig, PolicyConfig, load_config
from marl_llm.credit.load import load_recipe
from marl_llm.errors import ConfigError, ModelError, RunError
from marl_llm.models import load_model, outline
from marl_llm.plan.forecast import Plan, forecast
from marl_llm.plan.memory import Shape, available, parts, stated
from marl_llm.plan.tokens import Load
from marl_llm.run import Run, read_episodes, read_metrics
from marl_llm.team import found
from marl_llm.train import train
from tests.test_adapters import adapted, roles
from tests.test_heterogeneous import llama
from tests.test_train import SMALL, Silent
from tests.tiny import untrained

FAST = 1e9
"""Operations per second, so that nothing is measured."""


def small(folder: Path, *overrides: str) -> Config:
    return load_config(SMALL, [f"run.dir={folder}", *overrides])


def plan(folder: Path, *overrides: str) -> Plan:
    return forecast(small(folder, *overrides), flops=FAST, has={"cpu": 2**40})


def size(plan: Plan, policy: str, what: str) -> int:
    return sum(part.bytes for part in plan.memory if (part.policy, part.what) == (policy, what))


def test_parameters_are_those_of_the_model_that_is_loaded(tmp_path: Path) -> None:
    team = found(small(tmp_path), learn=False)
    told = plan(tmp_path).policies["agent"]
    assert told.parameters == told.trained == team.members["agent"].language_model.model.num_parameters()


def test_a_folder_is_counted_without_its_weights(tmp_path: Path) -> None:
    folder = llama(tmp_path / "llama")
    whole = load_model(folder).model.num_parameters()
    (folder / "model.safetensors").unlink()
    model = outline(folder).model
    assert all(parameter.device.type == "meta" for parameter in model.parameters())
    shape = Shape.of(model)
    assert shape.parameters == shape.multiplied == whole, "its embedding is tied to the head, and so multiplied with"
    assert (shape.hidden, shape.queries, shape.keys) == (48, 48, 2 * 2 * 12)
    told = plan(tmp_path, f"policies.agent.model={folder}", "play.context_tokens=512")
    assert told.policies["agent"].parameters == whole


def test_memory_is_what_is_held_and_no_setting_goes_unheard(tmp_path: Path) -> None:
    told = plan(tmp_path)
    count = told.policies["agent"].parameters
    for what in ("weights", "gradients", "reference", "engine weights"):
        assert size(told, "agent", what) == 4 * count
    assert size(told, "agent", "optimizer") == 8 * count
    longest = told.policies["agent"].load.longest
    positions = -(-longest // 64) * 64
    assert size(told, "agent", "engine cache") == 4 * (16 + 8) * positions * 1 * (32 + 32)
    assert size(told, "agent", "former selves' weights") == 4 * count
    assert size(told, "agent", "former selves' cache") == size(told, "agent", "engine cache")
    assert size(plan(tmp_path, "policies.agent.engine.dtype=bfloat16"), "agent", "engine weights") == 2 * count
    assert not size(plan(tmp_path, "policies.agent.objective.kl={reference: none, coef: 0}"), "agent", "reference")
    assert not size(plan(tmp_path, "evaluation.opponents=[]"), "agent", "former selves' cache")
    fewer = plan(tmp_path, "policies.agent.learner.micro_batch_tokens=100")
    assert size(fewer, "agent", "activations") < size(told, "agent", "activations")


def held(policy: PolicyConfig, shape: Shape) -> dict[str, int]:
    found = parts("p", policy, shape, longest=100, packed=10_000, copies=0, shared=None)
    return {part.what: part.bytes for part in found}


def test_what_a_gpu_of_several_holds_is_its_part_and_what_is_gathered() -> None:
    shape = Shape.of(untrained().model)
    count, outside = shape.parameters, shape.parameters - shape.layered
    assert outside == 2 * 32 * 400 + 32, "embedding, head and last norm"
    engine = EngineConfig(device="cuda")
    follows = ObjectiveConfig(kl=KLConfig(reference="ema"))
    one = held(PolicyConfig(engine=engine, learner=LearnerConfig(device="cuda"), objective=follows), shape)
    learner = LearnerConfig(device="cuda", processes=4)
    four = held(PolicyConfig(engine=engine, learner=learner, objective=follows), shape)
    for what in ("weights", "gradients", "optimizer", "reference"):
        assert four[what] == one[what] / 4
    assert four["activations"] == one["activations"]
    assert four["gathered weights"] == 4 * (2 * outside + 2 * shape.layered + outside + shape.layered), "one layer"
    half = held(PolicyConfig(learner=replace(learner, dtype="bfloat16"), objective=follows), shape)
    assert half["gathered weights"] == four["gathered weights"] / 2
    here = held(PolicyConfig(learner=replace(learner, device="cpu"), objective=follows), shape)
    assert (here["weights"], here["gathered weights"]) == (4 * count, 4 * four["gathered weights"])
    lora = held(PolicyConfig(learner=learner, objective=follows), replace(shape, adapter=1000))
    assert lora["optimizer"] == 2 * 4 * 1000 / 4
    assert lora["reference"] == lora["weights"] == count + 1000, "each has its part of the base"


def test_memory_knows_checkpointed_layers_and_chunks_of_logits() -> None:
    shape = replace(Shape.of(untrained().model), layers=10, vocabulary=150_000)
    layer = 12 * 32 + 4 * 64 + 6 * (32 + 2 * 32)
    learner = LearnerConfig(micro_batch_tokens=1000, row_tokens=500)
    plain = held(PolicyConfig(learner=learner), shape)["activations"]
    assert plain == 4 * (1000 * 10 * layer + 6 * 2**25 + 1000 * 500)
    kept = held(PolicyConfig(learner=replace(learner, checkpoint_activations=True)), shape)["activations"]
    assert plain - kept == 4 * 1000 * (9 * layer - 10 * 32)
    few = held(PolicyConfig(learner=replace(learner, logit_tokens=50)), shape)["activations"]
    assert plain - few == 4 * 6 * (2**25 - 50 * 150_000)


def test_vllm_holds_whole_contexts_on_a_cpu_or_what_it_is_told(tmp_path: Path) -> None:
    # 16 + 8 rows of 192 tokens, which are two blocks of 128; one layer with keys and values of width 32 each.
    assert size(plan(tmp_path, "policies.agent.engine.kind=vllm"), "agent", "engine cache") == 24 * 256 * 64 * 4
    told = plan(tmp_path, "policies.agent.engine={kind: vllm, vllm: {cache_gib: 0.5}}")
    assert size(told, "agent", "engine cache") == 2**29
    kind = [f"policies.{name}.engine.kind=vllm" for name in ("planner", "black", "white")]
    slots = [f"policies.planner.engine.{key}" for key in ("slots=16", "cache_slots=8")]
    team = forecast(roles(tmp_path, *kind, *slots), flops=FAST, has={"cpu": 2**40})
    assert size(team, "planner", "engine cache") == 24 * 256 * 64 * 4
    assert not size(team, "black", "engine cache"), "one vLLM plays base and adapters"


def test_a_critic_has_weights_gradients_moments_and_twins_a_copy(tmp_path: Path) -> None:
    told = plan(tmp_path, "credit=ppo", "policies.agent.critic={at: turn}")
    assert size(told, "agent", "critic") == 4 * size(told, "agent", "weights")
    twins = plan(tmp_path, "credit=archer", "policies.agent.critic={kind: twin}")
    assert size(twins, "agent", "critic") == 5 * size(twins, "agent", "weights")
    prime = plan(tmp_path, "credit=prime", *load_recipe("prime").settings)
    assert size(prime, "agent", "critic") == 5 * size(prime, "agent", "weights")
    assert size(plan(tmp_path), "agent", "critic") == 0
    tiny = "policies.agent.critic={at: turn, tiny: {hidden: 16, layers: 1, heads: 2, mlp: 16}}"
    assert 0 < size(plan(tmp_path, "credit=ppo", tiny), "agent", "critic") < size(told, "agent", "critic")


def test_a_fifth_on_top_is_kept_for_what_is_not_counted(tmp_path: Path) -> None:
    told = plan(tmp_path)
    counted = sum(part.bytes for part in told.memory if part.what != "games, allocator")
    assert told.needs["cpu"] == pytest.approx(1.2 * counted, abs=1)


def test_what_adapters_share_is_counted_once(tmp_path: Path) -> None:
    told = forecast(roles(tmp_path), flops=FAST, has={"cpu": 2**40})
    base, lora = untrained().model.num_parameters(), told.policies["black"].trained
    assert told.policies["black"].parameters == base + lora
    assert size(told, "planner", "weights") == 4 * base
    for what in ("weights", "gradients", "reference", "engine weights"):
        assert size(told, "black", what) == 4 * lora
    assert told.policies["planner"].trained == 0
    assert size(told, "planner", "optimizer") == 8 * base, "it is warmed up"
    team = found(roles(tmp_path))
    learner = team.members["black"].learner
    assert learner is not None
    assert lora == sum(weight.numel() for weight in learner.weights().values())
    other = forecast(roles(tmp_path, "policies.black.engine.dtype=bfloat16"), flops=FAST, has={"cpu": 2**40})
    assert size(other, "black", "engine weights") == 2 * (base + lora), "another precision is another copy"


def test_tokens_are_no_fewer_than_those_of_the_first_step(tmp_path: Path) -> None:
    config = small(tmp_path, "evaluation.games=0", "evaluation.exploitability=false", "run.steps=1")
    load = forecast(config, flops=FAST).policies["agent"].load
    path = train(config, Silent())
    (row,) = read_metrics(path)
    turns = [turn for episode in read_episodes(path) for turn in episode.turns]
    mean = sum(len(turn.prompt) for turn in turns) / len(turns)
    assert load.prompt / load.turns == pytest.approx(mean, rel=0.05)
    assert load.sampled == load.turns * 6
    assert load.longest >= max(len(turn.prompt) for turn in turns)
    assert load.read < load.prompt / 3, "prompts begin alike"
    assert load.packed >= (row["learn/agent/packed_tokens"] or 0.0) / config.policies["agent"].learner.epochs


def test_in_a_dialogue_earlier_replies_may_be_as_long_as_allowed(tmp_path: Path) -> None:
    short, long = (
        plan(tmp_path, "play.context=dialogue", "play.context_tokens=600", f"play.max_reply_tokens={limit}")
        for limit in (8, 80)
    )
    one, two = (told.policies["agent"].load for told in (short, long))
    assert two.sampled == 10 * one.sampled
    assert two.prompt > one.prompt
    assert two.longest - one.longest >= 72
    assert two.read == one.read, "what was sampled is in the cache"


def test_a_tree_is_forecast_with_its_forks(tmp_path: Path) -> None:
    """Of 4 games each has an answer, a verification and a refinement, of which 1, 2 and 4 are played."""
    chain = (
        "games.game.name=generate_verify_refine",
        "games.game.settings={tasks: {source: arithmetic, level: 1}}",
        "matchmaking={groups: 2, group_size: 2, seats: {'*': agent}}",
        "policies.agent.warmup=null",
    )
    plain, forked = (plan(tmp_path, *chain, *more) for more in ((), ("play.tree={width: 2, turns: 2}",)))
    one, two = plain.policies["agent"].load, forked.policies["agent"].load
    assert (one.turns, two.turns) == (4 * 3, 4 * (1 + 2 + 4))
    assert two.sampled == one.sampled * 7 / 3
    assert plan(tmp_path, "play.replays=1").assumed[-1] == "replays: not counted"


def test_a_step_larger_than_what_is_played_is_taken_to_be_like_it(tmp_path: Path) -> None:
    one = plan(tmp_path, "matchmaking.groups=64", "matchmaking.group_size=4").policies["agent"].load
    ten = plan(tmp_path, "matchmaking.groups=640", "matchmaking.group_size=4").policies["agent"].load
    assert ten.turns == 10 * one.turns
    assert ten.sampled == 10 * one.sampled


def test_time_is_operations_over_speed(tmp_path: Path) -> None:
    told = plan(
        tmp_path, "policies.agent.objective.kl={reference: none, coef: 0}", "policies.agent.learner.minibatches=1"
    )
    agent = told.policies["agent"]
    multiplied = Shape.of(found(small(tmp_path), learn=False).members["agent"].language_model.model).multiplied
    assert agent.play_s == pytest.approx(2 * multiplied * (agent.load.read + agent.load.sampled) / FAST)
    assert agent.learn_s == pytest.approx(6 * multiplied * agent.load.packed / FAST)
    assert told.step_s == pytest.approx((agent.play_s or 0.0) + (agent.learn_s or 0.0))
    again = plan(
        tmp_path,
        "policies.agent.objective.kl={reference: none, coef: 0}",
        "policies.agent.learner={minibatches: 1, checkpoint_activations: true}",
    )
    assert again.policies["agent"].learn_s == pytest.approx(8 * multiplied * agent.load.packed / FAST)
    measured = forecast(small(tmp_path))
    assert measured.step_s > 0


def test_an_earlier_run_gives_tokens_and_times(tmp_path: Path) -> None:
    config = small(tmp_path, "evaluation.games=0", "evaluation.exploitability=false", "run.steps=2")
    path = train(config, Silent())
    rows = read_metrics(path)
    told = forecast(config, like=path)
    sampled = [float(row["learn/agent/sampled_tokens"] or 0.0) for row in rows]
    assert told.policies["agent"].load.sampled == pytest.approx(sum(sampled) / 2)
    seconds = [float(row["time/play_s"] or 0.0) + float(row["time/learn_s"] or 0.0) for row in rows]
    assert told.step_s == pytest.approx(sum(seconds) / 2)
    double = forecast(replace(config, matchmaking=replace(config.matchmaking, groups=4)), like=path)
    assert double.step_s == pytest.approx(2 * told.step_s)
    assert double.policies["agent"].load.sampled == pytest.approx(sum(sampled))
    with pytest.raises(RunError, match="nowhere"):
        forecast(config, like=tmp_path / "nowhere")


def test_forks_of_an_earlier_run_are_no_further_games(tmp_path: Path) -> None:
    config = small(tmp_path)
    with Run.create(config, tmp_path / "run") as run:  # eight games, and a fork of each
        run.step(1, {"play/games": 16.0, "time/play_s": 3.0, "time/learn_s": 1.0})
    assert forecast(config, like=tmp_path / "run").step_s == 4.0


def test_who_has_no_model_has_turns_only(tmp_path: Path) -> None:
    told = plan(tmp_path, "matchmaking.seats={player_0: agent, player_1: noisy}")
    noisy = told.policies["noisy"]
    assert (noisy.parameters, noisy.play_s) == (0, None)
    assert noisy.load == Load(turns=noisy.load.turns)
    assert noisy.load.turns > 0


def test_the_policy_of_another_run_needs_an_engine_and_no_learner(tmp_path: Path) -> None:
    path = train(small(tmp_path, "run.steps=0", "evaluation.games=0", "evaluation.exploitability=false"), Silent())
    told = plan(
        tmp_path, f"policies.past={{kind: checkpoint, options: {{path: {path}}}}}", "evaluation.opponents=[past]"
    )
    whole = told.policies["past"]
    assert whole.parameters == told.policies["agent"].parameters
    assert {part.what for part in told.memory if part.policy == "past"} >= {"engine weights", "engine cache"}
    assert not size(told, "past", "optimizer")


def test_what_does_not_fit_says_what_to_change(tmp_path: Path) -> None:
    config = small(tmp_path, "policies.agent.engine.slots=100000")
    told = forecast(config, flops=FAST, has={"cpu": 2**30})
    assert not told.fits
    (verdict,) = told.verdicts
    assert verdict.startswith("cpu: needs ")
    assert "of 1.00 GiB free; does not fit: most is agent's engine cache" in verdict
    assert "change policies.agent.engine.slots, policies.agent.engine.cache_slots, play.max" in verdict
    assert forecast(config, flops=FAST, has={"cpu": 2**45}).fits


def test_a_device_that_is_not_here_does_not_fit_unless_its_memory_is_told(tmp_path: Path) -> None:
    config = small(tmp_path, "policies.agent.engine.device=cuda:99")
    told = forecast(config, flops=FAST)
    assert not told.fits
    assert "does not fit: this machine has no cuda:99 (--memory cuda:99=GIB)" in told.verdicts[1]
    assert forecast(config, flops=FAST, has={"cuda:99": 2**40}).fits
    with pytest.raises(ConfigError, match="--flops: is needed, since this machine has no cuda:99"):
        forecast(config)


def test_memory_can_be_told_and_is_otherwise_what_is_free() -> None:
    assert stated(["cuda=80", "cpu=0.5"]) == {"cuda": 80 * 2**30, "cpu": 2**29}
    with pytest.raises(ConfigError, match=r"--memory: 'cuda' is not allowed; it must be DEVICE=GIB"):
        stated(["cuda"])
    with pytest.raises(ConfigError, match=r"--memory: 'cpu=inf' is not allowed; it must be DEVICE=GIB"):
        stated(["cpu=inf"])
    free = available("cpu")
    assert free is not None
    assert free > 2**20
    assert available("cuda:99") is None


def test_memory_of_what_is_not_used_and_a_speed_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--memory: 'gpu' is not allowed; it must be one that is used: \['cpu'\]$"):
        forecast(small(tmp_path), flops=FAST, has={"gpu": 2**40})
    with pytest.raises(ConfigError, match=r"^--flops: 0 is not allowed; it must be more than 0$"):
        forecast(small(tmp_path), flops=0.0)


def test_a_machine_too_small_for_the_program_alone_is_told_so(tmp_path: Path) -> None:
    far = ("policies.agent.engine.device=cuda:99", "policies.agent.learner.device=cuda:99")
    told = forecast(small(tmp_path, *far), flops=FAST, has={"cpu": 1, "cuda:99": 2**40})
    assert told.verdicts[0].endswith("does not fit: the program itself needs as much")


def test_an_adapter_on_a_model_of_its_own_has_both(tmp_path: Path) -> None:
    told = plan(tmp_path, "policies.agent.lora={rank: 4}").policies["agent"]
    model = adapted().model
    assert told.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert told.parameters == sum(p.numel() for p in model.parameters())


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.whole(), ["plan", *arguments, "--flops", "1e9"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_the_command_ends_with_0_if_it_fits_and_1_if_not() -> None:
    code, told = invoke(str(SMALL))
    assert code == 0
    assert told.rstrip().endswith("; fits")
    assert "upper bound" in told
    code, told = invoke(str(SMALL), "--memory", "cpu=0.1", "--json")
    assert code == 1
    assert json.loads(told)["fits"] is False
    assert json.loads(told)["policies"]["agent"]["load"]["sampled"] > 0


def test_a_model_that_is_not_there_and_a_wrong_setting_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marl_llm.models.ENDPOINT", "http://127.0.0.1:9")
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(
        ModelError, match=r"model no/such: .* not in the cache of the hub, and http://127.0.0.1:9 cannot"
    ):
        invoke(str(SMALL), "policies.agent.model=no/such")
    with pytest.raises(ConfigError, match=r"^policies.old.options.path: None is not allowed; it must be the directory"):
        invoke(str(SMALL), "policies.old={kind: checkpoint}", "evaluation.opponents=[old]")
    with pytest.raises(ConfigError, match="no such seat"):
        invoke(str(SMALL), "matchmaking.seats={playr: agent, '*': agent}")


def test_nothing_is_loaded_for_a_forecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of ten billion parameters is counted on any machine."""
    config = small(tmp_path, "policies.agent.tiny={hidden: 8192, layers: 16, heads: 64, mlp: 16384, vocabulary: 400}")
    told = forecast(config, flops=FAST, has={"cpu": 2**30})
    assert told.policies["agent"].parameters > 10**10
    assert not told.fits
    assert "lora={}" in told.verdicts[0]
