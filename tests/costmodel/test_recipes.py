"""Servers of published benchmarks, and what their options hold back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autotune.engines import traits_by_name
from costmodel.errors import InputError
from costmodel.measured.benchmark_recipes import ServerSettings, recipe_settings
from costmodel.measured.runs import Run, prepare_runs
from costmodel.measured.runs_csv import read_runs
from costmodel.serving.scheduler_polling import held_back

HEADER = "gpu,engine,model,precision,isl,osl,lengths,concurrency,attn_tp"


def settings(**changed: object) -> ServerSettings:
    run: dict[str, object] = {
        "engine": "trtllm",
        "model": "meta-llama/Llama-3.1-70B",
        "gpu": "h200_sxm",
        "precision": "fp8",
        "isl": 1024.0,
        "osl": 1024.0,
        "gpus": 4,
        "concurrency": 32.0,
    }
    return recipe_settings(**{**run, **changed})  # type: ignore[arg-type]


def test_recipe_conditions() -> None:
    """A server's conditions decide, and the first that fits and says something is taken for each setting."""
    assert settings() == ServerSettings(max_num_batched_tokens=2248.0, kv_dtype="fp8", hold_steps=20)
    assert settings(gpus=8).hold_steps is None
    assert settings(osl=8192.0).hold_steps is None
    assert settings(gpu="b200_sxm").max_num_batched_tokens == 16384.0
    assert settings(model="a model that nobody benchmarked") == ServerSettings()


@pytest.mark.parametrize("elsewhere", [{"gpu": "h100_sxm"}, {"precision": "bf16"}, {"precision": "fp4"}])
def test_a_recipe_ends_where_its_script_does(elsewhere: dict[str, str]) -> None:
    """On another type of GPU of the same generation, or in another precision, the engine's defaults hold."""
    assert settings(**elsewhere) == ServerSettings()


@pytest.mark.parametrize(("concurrency", "steps"), [(4.0, 10), (15.0, 10), (16.0, 30), (128.0, 30)])
def test_recipe_ranges(concurrency: float, steps: int) -> None:
    """Ranges of concurrency include their lower end and not their upper one."""
    found = settings(engine="sglang", model="deepseek-ai/DeepSeek-R1", gpu="b200_sxm", concurrency=concurrency)
    assert found.poll_steps == steps


def test_held_back_by_hand() -> None:
    """Half a polling interval; of a hold the first waits all, those that come meanwhile half."""
    waited, others = held_back(np.array([30.0, 0.0, 0.0]), np.array([0.0, 20.0, 20.0]), np.array([0.1, 0.0, 0.2]))
    assert waited == pytest.approx([15.0, 20.0, (20.0 + 4 * 10.0) / 5.0])
    assert others == pytest.approx([3.0, 0.0, 4.0])


def runs_of(tmp_path: Path, header: str, *rows: str) -> tuple[Run, ...]:
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return read_runs(path, traits_by_name())


def test_file_goes_before_the_recipe(tmp_path: Path) -> None:
    """Columns of the file are the server's settings; the recipe fills in for known lengths alone, and says so."""
    row = "h200_sxm,trtllm,meta-llama/Llama-3.1-70B,fp8,1024,1024,{},32,4"
    taken, other = runs_of(tmp_path, HEADER, row.format("uniform"), row.format("fixed"))
    assert (taken.hold_steps, taken.batched_tokens, taken.by_recipe) == (20.0, 2248.0, True)
    assert (other.hold_steps, other.batched_tokens, other.by_recipe) == (0.0, 8192.0, False)
    more = f"{HEADER},max_num_batched_tokens,batch_wait_timeout_iters,kv_dtype,scheduler_recv_interval"
    (said,) = runs_of(tmp_path, more, f"{row.format('uniform')},4096,0,checkpoint,0")
    assert (said.hold_steps, said.batched_tokens, said.entry.kv_dtype, said.by_recipe) == (0.0, 4096.0, None, False)


def test_holding_shows_in_ttft(tmp_path: Path) -> None:
    """Prompts held for 20 steps come at least so much later, or half of it under load, and decode no slower.

    Whoever is held back does not decode meanwhile, which spares the others a little.
    """
    more = f"{HEADER},batch_wait_timeout_iters"
    row = "h200_sxm,trtllm,meta-llama/Llama-3.1-70B,fp8,1024,1024,fixed,{},4,{}"
    runs = runs_of(tmp_path, more, row.format(4, 0), row.format(4, 20), row.format(128, 0), row.format(128, 20))
    found = prepare_runs(runs).evaluate()
    later = found.ttft_s[1::2] - found.ttft_s[::2]
    assert np.all(later > 10.0 * found.tpot_s[::2] * 0.8)
    assert found.tpot_s[1::2] == pytest.approx(found.tpot_s[::2], rel=0.01)
    assert np.all(found.tpot_s[1::2] <= found.tpot_s[::2])


def test_wrong_settings(tmp_path: Path) -> None:
    """Each wrong setting is named with its line."""
    more = f"{HEADER},kv_dtype,scheduler_recv_interval"
    row = "h200_sxm,trtllm,meta-llama/Llama-3.1-70B,fp8,1024,1024,fixed,4,4,fp7,-3"
    with pytest.raises(InputError, match=r"(?s)scheduler_recv_interval must be a positive.*kv_dtype must be one of"):
        runs_of(tmp_path, more, row)
