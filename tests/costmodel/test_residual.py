"""What the formulas miss: features, and the residuals that the shipped files hold."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest

from costmodel.arch import load_model
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
    find_cell,
    full_covariance,
    residual_columns,
)
from costmodel.hardware import load_gpu
from costmodel.plan.columns import Floats
from tests.costmodel.helpers import TRAITS

COUNT = 7


def _features() -> Floats:
    random = np.random.default_rng(3)
    drawn = [2.0 ** random.uniform(0.0, top, COUNT) for top in (12.0, 5.0, 14.0, 13.0)]
    return features(*drawn, random.integers(0, 2, COUNT).astype(float), np.ones(COUNT))[0]


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


def test_an_unmeasured_model_is_known_by_its_formulas_alone() -> None:
    """Whatever its precision, its cell moves nothing and is wider than a measured one's."""
    names = {find_cell("vllm", "h100_sxm", "hopper", "h1-l1-a1-e0", p, "") for p in ("bf16", "fp8", "fp4")}
    assert names == {"h100_sxm|*|*|*"}
    here = (load_gpu("h100_sxm"), TRAITS["vllm"], None)
    unknown, known = (residual_columns([(load_model(name), *here)]) for name in ("mixtral-8x7b", "llama-3.1-70b"))
    centre = np.zeros((len(FEATURES), 1))
    centre[0] = 1.0
    for target in TARGETS:
        there, measured = getattr(unknown, target), getattr(known, target)
        assert there.mean.tolist() == [[0.0] * len(FEATURES)]
        assert there.shared_variance(centre) > measured.shared_variance(centre)
