"""Divisions of a cluster: the best by dynamic programming is the best by trying all; tables are those of `tune`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from autotune.planning.divide_cluster import Division, best_divisions, divide_cluster, division_of
from autotune.planning.model_tables import model_table, replica_offers
from autotune.planning.models_study import ClusterStudy, load_models_study
from autotune.scoring.best_knobs import score
from autotune.space import Candidate
from autotune.study import in_place, on_cluster, study_from_document
from autotune.tuning import tune
from costmodel.errors import InputError
from costmodel.plan.layout import Layout
from tests.remembered import asked_once

FILE = """
engine = "vllm"
[cluster]
gpus = 32
gpu = "h100_sxm"
{cluster}
[constraints]
ttft_ms = 2000
tpot_ms = 50
{rest}
[[models]]
name = "large"
model = "llama-3.1-70b"
{large}
workload = {{ isl = 1500, osl = 300, request_rate_per_s = 60 }}
[[models]]
name = "small"
model = "llama-3.1-8b"
{small}
workload = {{ isl = 2000, osl = 200, request_rate_per_s = 120 }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all divisions have their file: what the same model takes on the same GPUs is found once for all of them."""
    # the package's function of that name hides the module
    with asked_once((import_module("autotune.planning.divide_cluster"), "model_table")):
        yield tmp_path_factory.mktemp("divisions")


def loaded(folder: Path, *, cluster: str = "", rest: str = "", large: str = "", small: str = "") -> ClusterStudy:
    """Two models on 32 GPUs, with more lines in places."""
    file = folder / "two.toml"
    file.write_text(FILE.format(cluster=cluster, rest=rest, large=large, small=small), encoding="utf-8")
    return load_models_study(file)


@pytest.mark.parametrize("seed", range(40))
def test_no_division_is_worth_more(seed: int) -> None:
    """Over all ways to hand out units of one or two types to up to three models, at every number of units."""
    random = np.random.default_rng(seed)
    shape = (5,) if seed % 2 else (4, 3)
    values = [random.uniform(0.0, 1.0, shape) for _ in range(int(random.integers(1, 4)))]
    if seed % 3 == 0:
        values[0][(0,) * len(shape)] = -np.inf
    most, choices = best_divisions(values)
    every = list(product(*(range(n) for n in shape)))
    for there in every:
        best = max(
            sum(float(v[u]) for v, u in zip(values, given, strict=True))
            for given in product(every, repeat=len(values))
            if all(sum(u[a] for u in given) <= there[a] for a in range(len(shape)))
        )
        assert most[there] == pytest.approx(best)
        if np.isfinite(best):
            got = division_of(choices, there)
            assert sum(float(v[u]) for v, u in zip(values, got, strict=True)) == pytest.approx(best)
            assert all(sum(u[a] for u in got) <= there[a] for a in range(len(shape)))


@pytest.mark.parametrize(("name", "gpus"), [("llama-3.1-8b", 8), ("llama-3.1-70b", 16), ("qwen3-30b-a3b", 16)])
def test_tables_are_those_of_single_studies(name: str, gpus: int) -> None:
    """On so many GPUs a model takes the highest rate at which `tune` has replicas there that keep every limit."""
    study = study_from_document(
        {
            "engine": "vllm",
            "model": name,
            "cluster": {"gpus": gpus, "gpu": "h100_sxm"},
            "workload": {"isl": 1500, "osl": 300, "request_rate_per_s": 5},
            "constraints": {"ttft_ms": 2000, "tpot_ms": 40},
        },
        Path("one.toml"),
    )
    table = model_table(study, units=2, unit_gpus=gpus // 2)
    rate = float(table.capacity_per_s[2])

    def found(rate_per_s: float) -> bool:
        asked = replace(study, workload=replace(study.workload, request_rate_per_s=rate_per_s))
        return bool(tune(in_place(asked)).ranked)

    assert found(rate)
    assert not found(1.03 * rate)
    assert (np.diff(table.capacity_per_s) >= 0.0).all()


@pytest.mark.parametrize(("name", "gpus"), [("llama-3.1-8b", 8), ("llama-3.1-70b", 4), ("qwen3-30b-a3b", 4)])
@pytest.mark.parametrize("ttft_ms", [250, 700])
def test_tables_hold_for_random_arrivals(name: str, gpus: int, ttft_ms: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas keep the limits at what they are said to take, and not at more."""
    study = study_from_document(
        {
            "engine": "vllm",
            "model": name,
            "cluster": {"gpus": gpus, "gpu": "h100_sxm"},
            "workload": {"isl": 2000, "osl": 50, "request_rate_per_s": 1.0},
            "constraints": {"ttft_ms": ttft_ms, "tpot_ms": 80},
        },
        Path("one.toml"),
    )
    monkeypatch.setattr("autotune.planning.model_tables.SIZES", (1, 2, gpus))  # what is looked at below
    (offer,) = (offer for offer in replica_offers(study, most_gpus=2 * gpus) if offer.gpus == gpus)
    for replicas in (1, 2):
        rate = float(offer.capacities.together(replicas))
        layout = replace(offer.result.layout, replicas=replicas)

        def keeps(rate_per_s: float, layout: Layout = layout) -> bool:
            asked = on_cluster(study, replace(study.cluster, gpus=layout.gpus))
            asked = replace(asked, workload=replace(asked.workload, request_rate_per_s=rate_per_s))
            return score(asked, [Candidate(engine="vllm", layout=layout)])[0].feasible

        assert keeps(rate)
        assert keeps(0.5 * rate)
        assert not keeps(1.01 * rate)


def served(found: Division) -> dict[str, float]:
    """Shares of the first period by name."""
    return dict(zip((m.share.name for m in found.study.models), found.periods[0].served_frac, strict=True))


def test_more_weight_never_gets_less(folder: Path) -> None:
    """As the weight of a model grows it is served more, and the other less."""
    shares = [served(divide_cluster(loaded(folder, large=f"weight = {w}"))) for w in (0.05, 1.0, 20.0)]
    assert [s["large"] for s in shares] == sorted(s["large"] for s in shares)
    assert [s["small"] for s in shares] == sorted((s["small"] for s in shares), reverse=True)
    assert shares[0] != shares[-1]


def test_one_more_node_and_the_present(folder: Path) -> None:
    """What a model would gain by one more node is what its table says; the present is worth no more than the best."""
    found = divide_cluster(loaded(folder, large="gpus = 8", small="gpus = 24"))
    (period,) = found.periods
    for model, tables, units, gains in zip(
        found.study.models, found.tables, period.units, period.gain_of_one_more, strict=True
    ):
        room = tables[0].capacity_per_s
        more, now = (min(float(room[units[0] + n]) / model.rate_per_s, 1.0) for n in (1, 0))
        assert gains[0] == pytest.approx(model.share.weight * (more - now))
    assert period.cluster_gain[0] >= max(g[0] for g in period.gain_of_one_more) - 1e-6
    assert found.present is not None
    assert found.present.units == ((1,), (3,))
    assert found.present.value <= found.value + 1e-9


def test_who_sleeps_lends_its_gpus(folder: Path) -> None:
    """While one sleeps it has nothing, and the other no less than when both are awake."""
    found = divide_cluster(loaded(folder, small="awake_h = [22, 6]"))
    assert [(p.from_h, p.to_h, p.awake) for p in found.periods] == [
        (0.0, 6.0, (True, True)),
        (6.0, 22.0, (True, False)),
        (22.0, 24.0, (True, True)),
    ]
    night, day, _ = found.periods
    assert day.units[1] == (0,)
    assert day.served_frac[0] >= night.served_frac[0]
    assert found.value == pytest.approx(sum(p.value * p.share_of_day for p in found.periods))


def test_promised_gpus_are_kept(folder: Path) -> None:
    """A model without weight to speak of keeps the GPUs that it is promised, in whole nodes."""
    found = divide_cluster(loaded(folder, small="weight = 0.001\nmin_gpus = 12"))
    assert found.periods[0].units[1][0] >= 2


def test_two_types_of_gpus(folder: Path) -> None:
    """GPUs of another type are handed out too, and never make a division worth less."""
    one = divide_cluster(loaded(folder))
    two = divide_cluster(loaded(folder, cluster='also = [{ gpus = 16, gpu = "h200_sxm" }]'))
    assert [t.name for t in two.study.types] == ["h100_sxm", "h200_sxm"]
    assert two.value >= one.value
    assert sum(units[1] for units in two.periods[0].units) > 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"large": "wieght = 2"}, "wieght"),
        ({"large": "weight = 0"}, r"models\[0\].weight"),
        ({"large": "gpus = 8"}, r"models\[1\].gpus"),
        ({"large": "gpus = 24", "small": "gpus = 24"}, "more than the cluster has"),
        ({"rest": '[division]\nunit = "rack"'}, r"division.unit"),
        ({"large": "constraints = { ttft = 3 }"}, r"models\[0\].constraints.ttft"),
        ({"small": "awake_h = [3]"}, r"models\[1\].awake_h"),
        ({"small": "also_gpus = { b200 = 8 }"}, r"also_gpus.b200"),
    ],
)
def test_mistakes(folder: Path, lines: dict[str, str], message: str) -> None:
    """Every mistake is named by the place in the file where it stands."""
    with pytest.raises(InputError, match=message):
        loaded(folder, **lines)


def test_all_mistakes_at_once(folder: Path) -> None:
    """Mistakes of two models are both named."""
    with pytest.raises(InputError) as error:
        loaded(folder, large="weight = -1", small="sleeps = true")
    assert {p.path.split("]")[0] for p in error.value.problems} == {"$.models[0", "$.models[1"}
