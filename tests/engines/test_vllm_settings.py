"""The engine `vllm` as far as it needs no vLLM; the rest is in `tests/needs_vllm`."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from marl_llm.config import VLLMConfig, load_config
from marl_llm.engines.scratch import scratch_folder
from marl_llm.engines.vllm import VLLMEngine, engine_arguments
from marl_llm.errors import ConfigError, ModelError
from marl_llm.models import LanguageModel
from marl_llm.players import make_engine
from tests.engines.test_hf import EOS, MODELS
from tests.tiny import untrained

SMALL = Path(__file__).parents[1] / "small.yaml"


def arguments(settings: VLLMConfig | None = None, *, cpu: bool = True, **more: object) -> dict[str, object]:
    sizes = {"slots": 6, "cache_slots": 2, "context_tokens": 200, "dtype": torch.float32}
    return engine_arguments(settings or VLLMConfig(), MODELS["qwen3"](0), cpu=cpu, **{**sizes, **more})


def test_every_setting_reaches_vllm() -> None:
    gpu = arguments(cpu=False)
    assert gpu["gpu_memory_utilization"] == 0.9
    assert arguments(VLLMConfig(memory_share=0.4), cpu=False)["gpu_memory_utilization"] == 0.4
    assert gpu["kv_cache_memory_bytes"] is None
    assert arguments(VLLMConfig(cache_gib=0.5), cpu=False)["kv_cache_memory_bytes"] == 2**29
    assert (gpu["tensor_parallel_size"], gpu["distributed_executor_backend"]) == (1, "uni")
    wide = arguments(VLLMConfig(tensor_parallel=2), cpu=False)
    assert (wide["tensor_parallel_size"], wide["distributed_executor_backend"]) == (2, "mp")
    assert not gpu["enforce_eager"]
    assert arguments(VLLMConfig(compile=False), cpu=False)["enforce_eager"]
    assert arguments()["enforce_eager"]
    assert (gpu["max_num_seqs"], gpu["max_model_len"], gpu["dtype"]) == (6, 200, "float32")
    assert arguments(slots=10_000)["max_num_batched_tokens"] == 10_000
    assert arguments(context_tokens=9_000)["max_num_batched_tokens"] == 9_000
    assert arguments(cpu=False, sleeps=True)["enable_sleep_mode"]
    assert not arguments(cpu=True, sleeps=True)["enable_sleep_mode"]


def test_a_cpu_has_room_for_all_slots_at_full_length() -> None:
    # 6 + 2 sequences of two blocks of 128 tokens and one spare block; keys and values of 2 heads of 8 in 2 layers.
    assert arguments()["kv_cache_memory_bytes"] == 17 * 128 * 2 * 2 * 8 * 2 * 4
    assert arguments(dtype=torch.bfloat16)["kv_cache_memory_bytes"] == 17 * 128 * 2 * 2 * 8 * 2 * 2
    assert arguments(cache_slots=3)["kv_cache_memory_bytes"] == 19 * 128 * 2 * 2 * 8 * 2 * 4


def test_adapters_get_places_and_the_next_rank_that_vllm_has_room_for() -> None:
    assert "enable_lora" not in arguments()
    cpu, gpu = arguments(ranks=[4, 9]), arguments(cpu=False, ranks=[4, 9])
    assert (cpu["max_loras"], cpu["max_lora_rank"]) == (3, 16)
    assert (gpu["max_loras"], gpu["max_lora_rank"]) == (2, 16)


def test_without_vllm_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS"):
        monkeypatch.setenv(name, "0")
    message = r"engine.kind: 'vllm' needs vLLM .* pip install 'marl-llm\[vllm\]' on a GPU; without one, make setup-vllm"
    with pytest.raises(ConfigError, match=message):
        VLLMEngine(MODELS["qwen3"](0), policy="a", slots=1, cache_slots=0, context_tokens=40, eos_token_id=EOS)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused() -> None:
    config, made = load_config(SMALL), untrained()
    made.model.config.vocab_size = 300
    wrong = LanguageModel(model=made.model, tokenizer=made.tokenizer)
    with pytest.raises(ModelError, match=r"^agent: its tokenizer has 4\d\d tokens, more than the 300 that its model"):
        make_engine(config, config.policies["agent"], wrong, called="agent")


def test_folders_of_the_dead_are_removed_and_those_of_the_living_stay() -> None:
    mine = scratch_folder()
    code = "from marl_llm.engines.scratch import scratch_folder as new; print(new(), flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        scratch_folder().rmdir()
        assert theirs.is_dir()
        other.kill()
    scratch_folder().rmdir()
    assert not theirs.exists()
    assert mine.is_dir()
    mine.rmdir()


def test_stand_ins_are_wheels_with_a_name_and_nothing_else(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "scripts/stub_wheels.py", "constraints-vllm.txt", str(tmp_path)]
    subprocess.run(command, cwd=root, check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    wheels = sorted(tmp_path.iterdir())
    assert [wheel.name.split("-")[0] for wheel in wheels] == ["torchaudio", "torchcodec", "torchvision", "triton"]
    for wheel in wheels:
        inside = zipfile.ZipFile(wheel).namelist()
        assert {Path(name).name for name in inside} == {"METADATA", "WHEEL", "RECORD"}
