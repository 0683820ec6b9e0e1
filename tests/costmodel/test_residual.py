"""What the formulas miss: features, and the residuals that the shipped files hold."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest

from costmodel.arch import Arch, load_model, stored_in, with_dtypes
from costmodel.calibration.measured_cells import REACHES, arch_key, expected_error, find_cell, precision_key
from costmodel.calibration.residual import (
    COVARIANCE_UNIT,
    FEATURES,
    LINEAR,
    PRODUCTS,
    PRODUCTS_REACH,
    TARGETS,
    TRIANGLE,
    TargetResidual,
    features,
    full_covariance,
    residual_columns,
)
from costmodel.hardware import Gpu, load_gpu
from costmodel.plan.columns import Floats
from tests.costmodel.helpers import TRAITS

COUNT = 7


def _features() -> Floats:
    random = np.random.default_rng(3)
    drawn = [2.0 ** random.uniform(0.0, top, COUNT) for top in (12.0, 5.0, 14.0, 13.0)]
    return features(*drawn, random.integers(0, 2, COUNT).astype(float), (np.ones(COUNT),))[0]


def test_products_are_of_the_features_beside_them() -> None:
    """As far as they count in products; a square has its mean taken off, as the level's own part is the constant's."""
    phi = _features()
    near = np.clip(phi, -PRODUCTS_REACH, PRODUCTS_REACH)
    assert phi.shape == (len(FEATURES), COUNT)
    for row, (a, b) in enumerate(PRODUCTS, start=len(LINEAR)):
        product = near[LINEAR.index(a)] * near[LINEAR.index(b)]
        assert phi[row] == pytest.approx(product - (1.0 if a == b else 0.0))


def test_one_row_and_many_say_the_same() -> None:
    """A cell's row serves all plans, or stands once per plan where a batch mixes cells."""
    random = np.random.default_rng(5)
    width = len(FEATURES)
    half = random.normal(size=(width, width))
    rows, columns = np.array(TRIANGLE).T
    one = TargetResidual(
        mean=random.normal(size=(1, width)),
        covariance=(half @ half.T)[rows, columns][None],
        own=random.uniform(size=(1, width)),
        noise=np.array([0.3]),
    )
    many = one.take(np.zeros(COUNT, dtype=np.int64))
    phi = _features()
    by_hand = np.array([column @ half @ half.T @ column for column in phi.T])
    assert one.shared_variance(phi) == pytest.approx(by_hand)
    for name in ("mean_log", "shared_variance", "own_variance"):
        assert getattr(one, name)(phi) == pytest.approx(getattr(many, name)(phi))


@pytest.mark.parametrize("engine", TRAITS)
def test_every_cell_has_a_covariance(engine: str) -> None:
    """Whole numbers round it by half a unit, no more."""
    document = json.loads((files("costmodel.calibration") / "data" / f"residual-{engine}.json").read_text())
    assert tuple(document["features"]) == FEATURES
    for target in TARGETS:
        cells = np.array([cell[target] for cell in document["cells"].values()], dtype=float)
        assert cells.shape[1] == len(FEATURES) + len(TRIANGLE)
        roots = np.linalg.eigvalsh(full_covariance(cells[:, len(FEATURES) :]))
        assert roots.min() > -len(FEATURES), f"in units of {COVARIANCE_UNIT}"


CENTRE = np.zeros((len(FEATURES), 1))
CENTRE[0] = 1.0
H100, VLLM = load_gpu("h100_sxm"), TRAITS["vllm"]
QWEN, MEASURED = load_model("qwen3-32b"), "0.12.0"
"""A model, and the version of vLLM that it was measured under on H100 alone."""
STRANGER, DENSE_STRANGER = load_model("mixtral-8x7b"), load_model("mistral-7b")
"""Models that no run is of."""


def cell_of(arch: Arch, gpu: Gpu = H100, version: str | None = None) -> str:
    """How far a cell of vLLM lies from what was measured."""
    return find_cell("vllm", gpu.measured_as, arch_key(arch), precision_key(arch), version or "")[0]


@pytest.mark.parametrize(
    ("reach", "arch", "gpu", "version"),
    [
        ("cell", QWEN, "h100_sxm", MEASURED),
        ("gpu", QWEN, "h200_sxm", MEASURED),
        ("newer", QWEN, "h100_sxm", "99.0"),
        ("newer", with_dtypes(QWEN, gemm_dtype="nvfp4"), "h100_sxm", "99.0"),
        ("version", QWEN, "h200_sxm", "99.0"),
        ("version", QWEN, "h100_sxm", "0.12.1"),
        ("version", QWEN, "h100_sxm", "nightly-99"),
        ("version", QWEN, "h100_sxm", None),
        ("version", with_dtypes(QWEN, gemm_dtype="nvfp4"), "h100_sxm", MEASURED),
        ("version", QWEN, "b200_sxm", None),
        ("model", STRANGER, "h100_sxm", MEASURED),
    ],
)
def test_reach_is_what_a_plan_has_in_common_with_the_runs(
    reach: str, arch: Arch, gpu: str, version: str | None
) -> None:
    """A version that is not named is one that was not measured, whatever other versions were."""
    assert cell_of(arch, load_gpu(gpu), version) == reach


@pytest.mark.parametrize("version", [None, "99.0", "0.19.0"])
def test_what_was_learnt_of_other_versions_moves_nothing(version: str | None) -> None:
    """What dense models have in common stays; the version that was measured is surer than any other."""
    unknown, known, strange = (
        residual_columns([(arch, H100, VLLM, v)])
        for arch, v in ((QWEN, version), (QWEN, MEASURED), (DENSE_STRANGER, MEASURED))
    )
    for target in TARGETS:
        there, measured = getattr(unknown, target), getattr(known, target)
        assert there.mean.tolist() == getattr(strange, target).mean.tolist()
        assert measured.mean.tolist() != there.mean.tolist()
        assert there.shared_variance(CENTRE) > measured.shared_variance(CENTRE)


@pytest.mark.parametrize("arch", [STRANGER, DENSE_STRANGER], ids=lambda arch: arch.name)
def test_what_all_runs_have_in_common_is_one_function(arch: Arch) -> None:
    """Whatever the engine, an unmeasured model is moved alike, and less than the formulas may be wrong by."""
    found = [residual_columns([(arch, H100, TRAITS[name], None)]) for name in ("vllm", "sglang", "trtllm")]
    for target in TARGETS:
        means = [getattr(residual, target).mean.tolist() for residual in found]
        assert means[0] == means[1] == means[2]
        there = getattr(found[0], target)
        assert np.any(there.mean)
        assert np.all(np.abs(there.mean_log(CENTRE)) < np.sqrt(there.shared_variance(CENTRE)))


def test_first_tokens_of_experts_err_in_a_way_of_their_own() -> None:
    """The TTFT of an unknown model is moved by what its kind of network has in common, its TPOT by all runs."""
    experts, dense = (residual_columns([(arch, H100, VLLM, None)]) for arch in (STRANGER, DENSE_STRANGER))
    assert experts.tpot.mean.tolist() == dense.tpot.mean.tolist()
    assert experts.ttft.mean.tolist() != dense.ttft.mean.tolist()


@pytest.mark.parametrize("reach", REACHES)
def test_every_reach_has_the_error_to_expect(reach: str) -> None:
    """Means lie above medians, as errors have long tails, and intervals hold about what they say."""
    arch = {"model": STRANGER}.get(reach, QWEN)
    gpu = load_gpu("h200_sxm") if reach == "gpu" else H100
    found = expected_error(arch, gpu, VLLM, {"version": None, "newer": "99.0"}.get(reach, MEASURED))
    assert found.reach == reach
    assert 0.0 < found.tpot_median < found.tpot_mean
    assert 0.0 < found.ttft_median < found.ttft_mean
    assert min(found.inside_p10_p90_tpot, found.inside_p10_p90_ttft) > 0.7


def test_integers_are_a_precision_of_their_own() -> None:
    """What was learnt of DeepSeek-R1 in NVFP4 says nothing of its weights in INT4, which other kernels multiply."""
    stored = {dtype: stored_in(load_model("deepseek-r1"), dtype) for dtype in ("nvfp4", "int4", "int8", "fp8")}
    assert {dtype: precision_key(arch) for dtype, arch in stored.items()} == {
        "nvfp4": "fp4", "int4": "int4", "int8": "int8", "fp8": "fp8",
    }  # fmt: skip
    gpu = load_gpu("b200").measured_as
    reach = {
        dtype: find_cell("sglang", gpu, arch_key(arch), precision_key(arch), "0.5.9")[0]
        for dtype, arch in stored.items()
    }
    assert reach["nvfp4"] == "cell"
    assert reach["int4"] != "cell"
