"""Files of checkpoints that were read wrong once, each with what is right of it; they lie beside the repository."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from autotune.space import enumerate_space, parse_plan, resolve
from autotune.study import load_study
from costmodel.arch import Arch, active_params, kv_bytes_per_token, read_config_file, total_params, weight_bytes

MEASURES: Mapping[str, Callable[[Arch], float]] = {
    "weight_gb": lambda arch: weight_bytes(arch) / 1e9,
    "params_b": lambda arch: total_params(arch) / 1e9,
    "active_b": lambda arch: active_params(arch) / 1e9,
    "kv_bytes_per_token": kv_bytes_per_token,
}


def cases(shared_dir: Path, kind: str) -> list[tuple[Path, dict[str, Any]]]:
    """Folder and `expected.json` of every case of a kind."""
    folders = sorted((shared_dir / "cases").glob(f"{kind}_*"))
    return [(f, json.loads((f / "expected.json").read_text(encoding="utf-8"))) for f in folders]


def test_every_model_of_the_cases(shared_dir: Path) -> None:
    """It is read, and weights, parameters and cache are the figures of the case, `[figure, tolerance]` or exact."""
    found = cases(shared_dir, "model")
    assert len(found) >= 11
    for folder, expected in found:
        arch = read_config_file(folder / expected["file"])
        for measure in MEASURES.keys() & expected["expect"]:
            value = expected["expect"][measure]
            figure, tolerance = value if isinstance(value, list) else (value, 0.0)
            assert MEASURES[measure](arch) == pytest.approx(figure, rel=tolerance), f"{folder.name}: {measure}"


def test_a_wrapper_of_module_names_changes_nothing(shared_dir: Path) -> None:
    """Two files of one model, with and without a multimodal wrapper in the names of its modules, cost the same."""
    folder = shared_dir / "cases" / "model_quant_wrapped_names"
    wrapped, plain = (read_config_file(folder / name) for name in ("config.json", "same_without_wrapper.json"))
    assert weight_bytes(wrapped) == weight_bytes(plain)
    assert wrapped.dtypes == plain.dtypes


def test_every_rule_of_the_cases(shared_dir: Path) -> None:
    """Plans that a case calls valid are, and the others break a rule and are not enumerated."""
    found = cases(shared_dir, "rule")
    assert found
    for folder, expected in found:
        study = load_study(folder / expected["file"])
        space = enumerate_space(study.arch, gpus=study.cluster.gpus, engine=study.engine)
        for key, valid in expected["expect"].items():
            plan = key.removesuffix("_valid")
            degree = int(plan.removeprefix("TP"))
            assert any(c.layout.attn_tp == degree for c in space.candidates) == valid, f"{folder.name}: {key}"
            named = resolve(parse_plan(plan), arch=study.arch, gpus=degree, engine=study.engine)
            assert (not named.violations) == valid, f"{folder.name}: {key}"
