"""The forecast for a cluster: formulas by hand, who is put where, what waits for what, and what is refused."""

import json
import subprocess
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, Qwen3MoeConfig
from typer.testing import CliRunner

from marl_llm import cli
from marl_llm.config import (
    EngineConfig,
    KLConfig,
    LearnerConfig,
    MachinesConfig,
    NodeConfig,
    ObjectiveConfig,
    PlacementConfig,
    PolicyConfig,
    load_config,
    load_machines,
)
from marl_llm.errors import ConfigError
from marl_llm.plan import times
from marl_llm.plan.advice import Timing
from marl_llm.plan.described import DESCRIBED
from marl_llm.plan.forecast import Plan, forecast
from marl_llm.plan.memory import Shape
from marl_llm.plan.placement import Placed, Process, Rates, kind_of, place, processes
from marl_llm.plan.tokens import Load
from marl_llm.run import read_metrics
from marl_llm.train import train
from tests.test_train import SMALL, Silent

DENSE = Shape(
    parameters=10**9,
    adapter=0,
    multiplied=10**9,
    hidden=1000,
    inner=4000,
    layers=10,
    layered=10**9 - 2 * 10**6,
    queries=500,
    keys=1000,
    vocabulary=1000,
)
HALF = PolicyConfig(engine=EngineConfig(dtype="bfloat16"))
RATES = Rates(train=1e14, prefill=1e14, decode=1e14, bandwidth=1e12, link=1e10)
ONE = MachinesConfig(nodes=[NodeConfig(cores=8, memory_gb=64)])


def process(need: PlacementConfig, *, role: str = "engine", index: int = 0, kind: str = "cuda") -> Process:
    return Process(
        role=role, policy="", index=index, need=need, setting=f"cluster.{role}", number=f"cluster.{role}s", kind=kind
    )


def told(folder: Path, *overrides: str, machines: MachinesConfig | None = ONE) -> Plan:
    return forecast(load_config(SMALL, [f"run.dir={folder}", *overrides]), machines=machines)


def test_decoding_reads_the_weights_once_for_all_sequences_and_the_cache_of_each() -> None:
    load = Load(turns=10, prompt=950, sampled=100)  # 95 before a reply, and 5 of it on average
    assert times.context(load) == 100
    ten = times.decoding(HALF, DENSE, load, 10, RATES)
    assert ten.weights_s == pytest.approx(0.002), "2 GB at 1 TB/s"
    assert ten.cache_s == pytest.approx(10 * 100 * 10 * 1000 * 2 / 1e12)
    assert ten.products_s == pytest.approx(10 * (2e9 + 4 * 10 * 500 * 100) / 1e14)
    assert ten.token_s == ten.weights_s + ten.cache_s
    assert ten.bound == "reading weights"
    assert times.decoding(HALF, DENSE, load, 1000, RATES).bound == "products"
    long = replace(load, prompt=999_950)
    assert times.decoding(HALF, DENSE, long, 10, RATES).bound == "reading keys and values"
    assert times.decoding(PolicyConfig(), DENSE, load, 10, RATES).weights_s == pytest.approx(0.004), "float32"


def test_prompts_that_all_begin_with_are_read_by_each_engine() -> None:
    load = Load(turns=10, prompt=1000, read=400, sampled=0)
    token = (2e9 + 4 * 10 * 500 * 50) / 1e14
    assert times.reading_s(DENSE, load, 1, RATES) == pytest.approx(400 * token)
    assert times.reading_s(DENSE, load, 2, RATES) == pytest.approx(400 * token)
    assert times.reading_s(DENSE, load, 4, RATES) == pytest.approx(250 * token), "not more than there is"


def test_learning_is_three_passes_and_more_with_a_reference_or_old_chances() -> None:
    load = Load(turns=10, prompt=1000, packed=500, sampled=0)
    assert times.learning_s(PolicyConfig(), DENSE, load, 1e12) == pytest.approx(500 * 3 * (2e9 + 1e6) / 1e12)
    assert times.passes(PolicyConfig(), adapter=True) == 2
    pulled = PolicyConfig(objective=ObjectiveConfig(kl=KLConfig(reference="frozen")))
    assert times.passes(pulled, adapter=False) == 4
    again = PolicyConfig(learner=LearnerConfig(epochs=2, minibatches=3))
    assert times.passes(again, adapter=False) == 2 * 3 + 1


def test_weights_go_to_the_host_to_each_further_node_and_into_the_engines() -> None:
    assert times.moving_s(DENSE, 1e10, 2e10, 0, 1e9) == pytest.approx(0.4 + 0.2)
    assert times.moving_s(DENSE, 1e10, 2e10, 3, 1e9) == pytest.approx(0.4 + 3 * 4 + 0.2)
    adapted = replace(DENSE, adapter=10**6)
    assert times.moving_s(adapted, 1e10, 1e10, 0, 1e9) == pytest.approx(8e-4), "the adapter alone"


def test_a_learner_on_two_nodes_gathers_half_of_the_weights_twice_and_gives_gradients_once() -> None:
    policy = PolicyConfig(learner=LearnerConfig(micro_batch_tokens=100))
    load = Load(turns=1, packed=500)
    assert times.gathering_s(policy, DENSE, load, 1, 1e10) == 0
    assert times.gathering_s(policy, DENSE, load, 2, 1e10) == pytest.approx(5 * 3 * 2e9 / 2 / 1e10)


def test_of_a_mixture_a_token_needs_its_experts_only_and_many_tokens_need_them_all() -> None:
    shape = replace(DENSE, parameters=156, multiplied=100, experts=64, chosen=1 / 8)
    assert shape.touched(1) == 100
    assert shape.touched(2) == 107, "of the other 56 an eighth"
    assert shape.touched(10_000) == pytest.approx(156)
    assert DENSE.touched(7) == 10**9
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 99,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    moe = Qwen3MoeConfig(
        **sizes, num_key_value_heads=1, vocab_size=50, moe_intermediate_size=4, num_experts=8, num_experts_per_tok=2
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(moe)
    found = Shape.of(model)
    assert found.experts == 2 * 8 * 3 * 16 * 4
    assert (found.chosen, found.inner) == (0.25, 8)
    assert found.parameters - found.multiplied == 50 * 16 + 3 * found.experts // 4, "the embedding and six of eight"


def test_models_that_are_described_have_the_sizes_that_they_are_named_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marl_llm.models.is_offline_mode", lambda: True)
    wanted = {"planner": "Qwen/Qwen3-30B-A3B", "agent": "Qwen/Qwen3-4B"}
    models = [f"policies.{name}.model={model}" for name, model in wanted.items()]
    seats = "matchmaking.seats={player_0: planner, player_1: agent}"
    plan = told(tmp_path, *models, "policies.agent.warmup=null", seats)
    assert plan.policies["planner"].parameters == 30_532_122_624
    assert plan.policies["agent"].parameters == 4_022_468_096
    assert any("agent: Qwen/Qwen3-4B is not here; its sizes are known" in line for line in plan.assumed)
    assert {architecture for architecture, _ in DESCRIBED.values()} == {"qwen3", "qwen3_moe"}


def test_rates_are_shares_of_what_the_maker_states() -> None:
    machines = MachinesConfig(nodes=[NodeConfig(cores=8, gpus=8, gpu="h100")])
    rates = Rates.of(Placed(process=process(PlacementConfig(gpus=2)), node=0, gpu="h100", cards=(0, 1)), machines)
    assert (rates.train, rates.prefill) == pytest.approx((0.4 * 989e12, 0.5 * 989e12))
    assert (rates.bandwidth, rates.link) == pytest.approx((0.6 * 3.35e12, 0.7 * 64e9))
    both = Rates.of(
        Placed(process=process(PlacementConfig(gpus=2)), node=0, gpu="h100", cards=(0, 1)), machines, gpus=2
    )
    assert both.bandwidth == 2 * rates.bandwidth
    half = Placed(process=process(PlacementConfig(gpus=0.5)), node=0, gpu="h100", cards=(0,))
    assert Rates.of(half, machines).train == rates.train / 2
    assert Rates.of(half, machines, alone=True).train == rates.train
    cores = Placed(process=process(PlacementConfig(cpus=3)), node=0, gpu="cpu", cards=())
    assert Rates.of(cores, machines).train == 3 * 30e9


def test_a_step_is_the_sum_of_its_parts_or_the_longer_of_those_side_by_side() -> None:
    timing = Timing(mode="sync", play_s=10, learn_s=4, move_s=1)
    assert timing.total_s == 15
    assert (timing.engines_wait, timing.learners_wait) == pytest.approx((1 / 3, 11 / 15))
    beside = replace(timing, mode="async")
    assert beside.total_s == 11
    assert beside.learners_wait == pytest.approx(7 / 11)
    assert replace(beside, learn_s=20).total_s == 20


def test_processes_are_put_where_there_is_room_and_half_a_gpu_beside_another_half() -> None:
    machines = MachinesConfig(
        nodes=[
            NodeConfig(cores=4, gpus=2, gpu="l40s"),
            NodeConfig(cores=4, gpus=2, gpu="h100", resources={"planner": 1}),
        ]
    )
    asked = [
        process(PlacementConfig(gpus=0.5), index=0),
        process(PlacementConfig(gpus=0.5), index=1),
        process(PlacementConfig(gpus=1), role="learner"),
        process(PlacementConfig(cpus=0, gpus=1, resources={"planner": 1}), role="judge"),
        process(PlacementConfig(cpus=3), role="worker", kind=""),
    ]
    found = [(one.process.role, one.node, one.gpu, one.cards) for one in place(asked, machines)]
    assert found == [
        ("judge", 1, "h100", (0,)),
        ("learner", 0, "l40s", (0,)),
        ("engine", 0, "l40s", (1,)),
        ("engine", 0, "l40s", (1,)),
        ("worker", 1, "cpu", ()),
    ]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            [process(PlacementConfig(gpus=2), index=index) for index in range(5)],
            r"^cluster.engines: 5 with 2 GPUs each \(cluster.engine.gpus\) is not allowed; .* 10 GPUs, .* are 8$",
        ),
        (
            [process(PlacementConfig(gpus=5))],
            r"^cluster.engine.gpus: 5 is not allowed; it must be what a node still has",
        ),
        ([process(PlacementConfig(cpus=9), role="worker")], r"^cluster.worker.cpus: 9 is not allowed; .* worker 0 \("),
        (
            [process(PlacementConfig(resources={"far": 0.5}))],
            r"^cluster.engine.resources.far: 0.5 is not allowed; it must be what a node still has",
        ),
    ],
)
def test_more_than_there_is_is_refused_by_the_name_of_the_setting(asked: list[Process], message: str) -> None:
    machines = MachinesConfig(nodes=[NodeConfig(count=2, cores=8, gpus=4, gpu="h100")])
    with pytest.raises(ConfigError, match=message):
        place(asked, machines)


def test_a_run_asks_for_what_its_settings_say(tmp_path: Path) -> None:
    cluster = "cluster={workers: 3, engines: 2, engine: {cpus: 2}, learners: {agent: {cpus: 4}}}"
    config = load_config(SMALL, ["runtime=ray", "cluster.engine.gpus=0", cluster])
    asked = [(one.label, one.need.cpus, one.setting) for one in processes(config)]
    assert asked == [
        *[("engine", 2, "cluster.engine")] * 2,
        *[("worker", 1, "cluster.worker")] * 3,
        ("evaluator", 0, "cluster.evaluator"),
        ("learner of agent", 4, "cluster.learners.agent"),
    ]
    with pytest.raises(
        ConfigError, match=r"^cluster.learner.gpus: 0 is not allowed; it must be more than 0, since a mod"
    ):
        told(tmp_path, "policies.agent.learner.device=cuda")
    with pytest.raises(
        ConfigError, match=r"^cluster.worker.gpus: 0 is not allowed; it must be more than 0, since a mod"
    ):
        told(tmp_path, "policies.agent.engine.device=cuda")


def test_a_step_on_cores_takes_what_the_formulas_say(tmp_path: Path) -> None:
    plan = told(tmp_path, "cluster.worker.cpus=2", "cluster.mode=one_step_off")
    config = load_config(SMALL)
    policy, load = config.policies["agent"], plan.policies["agent"].load
    total = plan.policies["agent"].parameters
    embedding, width = 0, 32
    shape = Shape(
        parameters=total,
        adapter=0,
        multiplied=0,
        hidden=width,
        inner=64,
        layers=1,
        layered=0,
        queries=32,
        keys=64,
        vocabulary=0,
    )
    vocabulary = _vocabulary(total)
    embedding = vocabulary * width
    shape = replace(shape, multiplied=total - embedding, vocabulary=vocabulary)
    flops, bandwidth = 2 * 30e9, 2 * 8e9
    batch = 8 / 2  # eight games, two workers
    before = (load.prompt + load.sampled / 2) / load.turns
    reading = 4 * (shape.multiplied + batch * before * 64) / bandwidth
    products = batch * (2 * shape.multiplied + 4 * 32 * before) / flops
    sampling = load.sampled / 2 / batch * max(reading, products)
    prompts = min(2 * load.read, load.prompt) / 2 * (2 * shape.multiplied + 4 * 32 * before / 2) / flops
    assert plan.policies["agent"].play_s == pytest.approx(sampling + prompts)
    passes = 4 + 1  # with a reference, and chances before the first of two minibatches
    learning = load.packed * passes * (2 * shape.multiplied + 4 * 32 * before / 2) / 30e9
    assert plan.policies["agent"].learn_s == pytest.approx(learning)
    assert plan.timing is not None
    assert plan.timing.move_s == pytest.approx(4 * total / 8e9 + 4 * total / 16e9)
    assert plan.step_s == pytest.approx(max(sampling + prompts + plan.timing.move_s, learning))
    assert policy.engine.dtype == "float32"


def _vocabulary(total: int) -> int:
    """Of the tiny model of SMALL: two embeddings, a layer's projections and norms, and the last norm."""
    layer = 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32 + 2 * 16
    return (total - layer - 32) // (2 * 32)


def test_the_bottleneck_is_named_with_what_to_change(tmp_path: Path) -> None:
    def lines(*overrides: str) -> str:
        return "\n".join(told(tmp_path, *overrides).advice)

    slow = ("policies.agent.learner.epochs=50", "cluster.mode=async")
    assert "bottleneck: learning; learners wait 0% of the time and engines 100%: more" in lines(*slow)
    assert "more GPUs for the learner of agent (policies.agent.learner.processes) or fewer engines" in lines(*slow)
    fast = ("play.max_reply_tokens=150", "cluster.mode=async", "policies.agent.objective.kl={reference: none, coef: 0}")
    played = lines(*fast, "cluster.learner.cpus=6")
    assert "bottleneck: play; learners wait" in played
    assert "more engines (cluster.workers) or fewer GPUs for learners" in played
    assert "tokens are up to 2 updates old" in played
    plain = lines("policies.agent.learner.epochs=50")
    assert "cluster.mode=one_step_off would take" in plain
    assert "staleness: none" in plain
    free = lines("cluster.mode=one_step_off", "policies.agent.objective.importance_cap=null")
    assert "up to 1 update old" in free
    assert "importance_cap is null: nothing corrects" in free
    assert "policies.agent.engine.slots allows no more sequences" in lines("policies.agent.engine.slots=2")


def test_memory_is_told_for_every_gpu_and_node(tmp_path: Path) -> None:
    cuda = (
        "policies.agent.engine.device=cuda",
        "policies.agent.learner.device=cuda",
        "cluster.learner.gpus=1",
        "cluster.evaluator.gpus=1",
    )
    machines = MachinesConfig(nodes=[NodeConfig(cores=8, memory_gb=64, gpus=5, gpu="h100")])
    plan = told(tmp_path, *cuda, "cluster.engines=3", machines=machines)
    assert plan.has == {
        "each of 3 h100 (engine)": 80 * 10**9,
        "h100 (evaluator)": 80 * 10**9,
        "h100 (learner of agent)": 80 * 10**9,
        "node (driver, 3 x engine, evaluator, learner of agent, 2 x worker)": 64 * 10**9,
    }
    count = plan.policies["agent"].parameters

    def held(place: str) -> dict[str, int]:
        return {part.what: part.bytes for part in plan.memory if part.device == place and part.policy == "agent"}

    learner, engine, node = (
        held(place) for place in ("h100 (learner of agent)", "each of 3 h100 (engine)", [*plan.has][3])
    )
    assert (learner["weights"], learner["optimizer"], learner["reference"]) == (4 * count, 8 * count, 4 * count)
    assert engine["engine weights"] == 4 * count
    assert held("h100 (evaluator)") == engine
    assert node == {"models as loaded": (1 + 3 + 1) * 4 * count, "weights on their way": 4 * count}
    assert plan.fits
    shared = (*cuda, "cluster.engines=1", "cluster.engine.gpus=0.5", "cluster.learner.gpus=0.5")
    apart, together = (
        told(tmp_path, *shared, f"cluster.colocate={value}", machines=machines) for value in ("false", "true")
    )
    place = "h100 (engine, learner of agent)"
    assert place in apart.has
    assert {part.what for part in together.memory if part.device == place} < {
        part.what for part in apart.memory if part.device == place
    }
    assert together.timing is not None
    assert apart.timing is not None
    assert together.timing.play_s == pytest.approx(apart.timing.play_s / 2), "it has the whole card while it plays"


def test_what_does_not_fit_on_a_gpu_says_so(tmp_path: Path) -> None:
    cuda = ("policies.agent.engine.device=cuda", "policies.agent.learner.device=cuda", "cluster.learner.gpus=1")
    cuda = (*cuda, "cluster.evaluators=0")
    machines = MachinesConfig(nodes=[NodeConfig(cores=8, memory_gb=64, gpus=2, gpu="l40s")])
    tiny = "policies.agent.tiny={hidden: 4096, layers: 16, heads: 32, mlp: 16384, vocabulary: 400}"
    plan = told(tmp_path, *cuda, tiny, "cluster.engines=1", machines=machines)
    assert not plan.fits
    (verdict,) = (line for line in plan.verdicts if line.startswith("l40s (learner of agent)"))
    assert "does not fit: most is agent's optimizer" in verdict
    assert verdict.endswith("change policies.agent.learner.processes")


def test_what_a_run_measured_goes_before_formulas(tmp_path: Path) -> None:
    path = train(
        load_config(
            SMALL, [f"run.dir={tmp_path}", "evaluation.games=0", "evaluation.exploitability=false", "run.steps=2"]
        ),
        Silent(),
    )
    rows = read_metrics(path)
    plan = forecast(load_config(SMALL, [f"run.dir={tmp_path}"]), like=path, machines=ONE)
    assert plan.timing is not None
    assert plan.timing.play_s == pytest.approx(sum(float(row["time/play_s"] or 0.0) for row in rows) / 2)
    assert plan.timing.learn_s == pytest.approx(sum(float(row["time/learn_s"] or 0.0) for row in rows) / 2)
    assert plan.policies["agent"].play_s is None
    assert plan.step_s == pytest.approx(plan.timing.play_s + plan.timing.learn_s + plan.timing.move_s)


def test_this_machine_is_the_cluster_where_none_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    plan = told(tmp_path, "runtime=ray", machines=None)
    assert any("8 cores" in line and "this machine; --cluster FILE" in line for line in plan.assumed)
    assert kind_of("NVIDIA H100 80GB HBM3") == "h100"
    with pytest.raises(ConfigError, match=r"^--cluster: is needed, since Voodoo 2 is none of the known GPUs"):
        kind_of("Voodoo 2")


def test_the_command_reads_a_description_and_refuses_what_it_says_already(tmp_path: Path) -> None:
    file = tmp_path / "machines.yaml"
    file.write_text("nodes: [{cores: 8, memory_gb: 64}]\nassumed: {mfu: 0.3}")
    assert load_machines(file).assumed.mfu == 0.3
    result = CliRunner().invoke(cli.whole(), ["plan", str(SMALL), "--cluster", str(file)])
    assert result.exit_code == 0
    assert "bottleneck: " in result.stdout
    assert "30% of the operations in learning (assumed.mfu)" in result.stdout
    result = CliRunner().invoke(cli.whole(), ["plan", str(SMALL), "--cluster", str(file), "--json"])
    assert json.loads(result.stdout)["timing"]["mode"] == "sync"
    for wrong in (["--flops", "1e9"], ["--memory", "cpu=4"]):
        refused = CliRunner().invoke(cli.whole(), ["plan", str(SMALL), "--cluster", str(file), *wrong])
        assert str(refused.exception).startswith("--flops, --memory: a description of the cluster says what there is")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: [{gpuss: 1}]", "gpuss: unknown key; nearest valid name: gpus"),
        ("nodes: [{gpu: h300, gpus: 1}]", r"nodes.gpu: 'h300' is not allowed; it must be one of \['a100', 'h100'"),
        ("nodes: [{gpu: h100}]", "nodes.gpus: 0 is not allowed; it must be 0 with gpu: cpu, else 1 or more"),
        ("nodes: []", r"nodes: \[\] is not allowed; it must be at least one"),
        ("nodes: 3", r"nodes: it must be a list, as in \[a, b\]"),
        ("assumed: {mfu: 2}", "assumed.mfu: 2.0 is not allowed; it must be more than 0, at most 1"),
        ("network_gb_s: 0", "network_gb_s: 0.0 is not allowed; it must be more than 0"),
        ("kinds: {mine: {memory_gb: 1}}", "kinds.mine.bandwidth_gb_s: .* missing mandatory value"),
    ],
)
def test_a_wrong_description_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "machines.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"^config .*machines.yaml: {message}"):
        load_machines(file)


def test_a_kind_of_gpu_of_ones_own_is_known_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "machines.yaml"
    file.write_text(
        "nodes: [{gpus: 1, gpu: mine}]\nkinds: {mine: {memory_gb: 1, bandwidth_gb_s: 2, tflops: 3, link_gb_s: 4}}"
    )
    assert load_machines(file).device("mine").tflops == 3
    assert load_machines(file).device("h200").memory_gb == 141


CLUSTERS = Path(__file__).parents[1] / "scripts" / "cluster"
CONFIGS = Path(__file__).parents[1] / "configs"


def test_the_configurations_for_clusters_have_room_on_the_machines_that_are_described(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("marl_llm.models.is_offline_mode", lambda: True)
    fewer = ["matchmaking.groups=2", "games.research.settings.tasks.documents=100"]
    small = [*fewer, "games.research.training.tasks.documents=100"]
    config = load_config(CONFIGS / "deep_research_qwen3_30b_a3b.yaml", small)
    plan = forecast(config, machines=load_machines(CLUSTERS / "4x8xh200.yaml"))
    assert "h200 (learner of planner)" in " ".join(plan.has)
    assert {policy.parameters for policy in plan.policies.values()} == {30_532_122_624}
    where = place(processes(config), load_machines(CLUSTERS / "4x8xh200.yaml"))
    nodes = {name: {one.node for one in where if one.process.policy == name} for name in ("planner", "searcher")}
    assert nodes["planner"] <= {0, 1}
    assert nodes["searcher"] <= {2, 3}
    marshal = load_config(CONFIGS / "marshal_qwen3_4b.yaml")
    assert len(place(processes(marshal), load_machines(CLUSTERS / "8xh100.yaml"))) > 8


def test_the_script_for_slurm_and_the_manifest_for_kubernetes_can_be_read() -> None:
    subprocess.run(["bash", "-n", CLUSTERS / "slurm.sbatch"], check=True)
    job = yaml.safe_load((CLUSTERS / "kuberay.yaml").read_text())
    assert job["kind"] == "RayJob"
    subprocess.run(["bash", "-n", "-c", job["spec"]["entrypoint"]], check=True)
    assert "configs/deep_research_qwen3_30b_a3b.yaml" in job["spec"]["entrypoint"]
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray")
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    for name, group in groups.items():
        assert json.loads(json.loads(group["rayStartParams"]["resources"])) == {name: 8}, (
            "quoted twice, as KubeRay wants"
        )
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    config = load_config(CONFIGS / "deep_research_qwen3_30b_a3b.yaml")
    assert {name for need in config.cluster.learners.values() for name in need.resources} == {*groups}


def test_processes_of_a_learner_split_what_it_holds_and_vllm_takes_what_memory_is_left(tmp_path: Path) -> None:
    cuda = ("runtime=ray", "policies.agent.engine.device=cuda", "policies.agent.learner.device=cuda")
    placed = ("cluster.engines=1", "cluster.engine.gpus=2", "cluster.learner.gpus=1", "cluster.evaluators=0")
    placed = (*placed, "evaluation.every=0")
    kind = "policies.agent.engine.kind=vllm"
    machines = MachinesConfig(nodes=[NodeConfig(cores=8, memory_gb=64, gpus=6, gpu="l40s")])

    def held(*overrides: str) -> dict[str, int]:
        plan = told(tmp_path, *cuda, *placed, *overrides, machines=machines)
        return {part.what: part.bytes for part in plan.memory if part.policy == "agent" and "l40s" in part.device}

    one, four = (held(f"policies.agent.learner.processes={count}") for count in (1, 4))
    for what in ("weights", "gradients", "optimizer", "reference"):
        assert four[what] == one[what] // 4
    assert "gathered weights" in four.keys() - one.keys()
    wide = held(kind, "policies.agent.engine.vllm.tensor_parallel=2")
    assert wide["engine weights"] == held(kind)["engine weights"] // 2
    many = ("policies.agent.engine.slots=2000000", "evaluation.opponents=[random]")
    plan = told(tmp_path, *cuda, *placed, kind, *many, machines=machines)
    (engine,) = (line for line in plan.verdicts if "(engine)" in line)
    assert engine.endswith("fits")
    with pytest.raises(ConfigError, match=r"^cluster.engine.gpus: 2 is not allowed; it must be at least engine.vllm"):
        held(kind, "policies.agent.engine.vllm.tensor_parallel=4")
