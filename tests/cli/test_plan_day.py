"""`autotune plan-day` end to end, and what it says of input that it cannot plan by."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.cli.options import EXIT_INFEASIBLE, EXIT_INPUT
from autotune.planning import DayShape, joined_days, replay
from autotune.traffic.read import read_traffic
from tests.command import autotune
from tests.studies import FOLDER

STUDY = str(FOLDER / "day-llama-70b-64xh100.toml")
TRACE = "tests/data/azure_llm_2023_conv.csv"


@pytest.fixture(scope="module", autouse=True)
def fewer_requests() -> Iterator[None]:
    """A day is served by two thousand of its requests: what is asked of a replay here needs no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "MOST_REQUESTS", 2_000)
        yield


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two days of up to one request a second."""
    file = tmp_path_factory.mktemp("days") / "days.csv"
    file.write_text(joined_days(read_traffic(TRACE), DayShape(peak_per_s=1.0), days=2), encoding="utf-8")
    return str(file)


def planned(log: str, *words: str) -> dict[str, Any]:
    """The answer as JSON."""
    done = autotune("plan-day", STUDY, "--traffic", log, "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_end_to_end(log: str, tmp_path: Path) -> None:
    """Every step has room for what is planned; totals are sums of the steps; the files say what the answer says."""
    page, folder = tmp_path / "page.html", tmp_path / "day"
    found = planned(log, "--html", str(page), "--out", str(folder), "--set", "cluster.gpus=16")
    steps = found["steps"]
    assert [s["start_s"] for s in steps] == [3600 * i for i in range(24)]
    assert all(s["capacity_per_s"] >= s["planned_per_s"] * (1 - 1e-9) for s in steps)
    assert all(s["load_low_per_s"] < s["load_per_s"] < s["load_high_per_s"] for s in steps)
    assert found["total"]["gpu_hours"] >= sum(s["gpus"] for s in steps)
    assert found["total"]["cost_usd"] == pytest.approx(2.5 * found["total"]["gpu_hours"])
    assert found["total"]["gpu_hours"] < found["fixed"]["gpu_hours"]
    assert max(s["p_break"] for s in steps) <= found["p_break"]["of_day"] < 1.0
    names = [s["strategy"] for s in found["replay"]["strategies"]]
    assert (
        names == [s["strategy"] for s in found["replay"]["with_surges"]] == ["planned", "fixed", "reactive", "oracle"]
    )
    hours = {s["strategy"]: s["gpu_hours"] for s in found["replay"]["strategies"]}
    assert hours["oracle"] <= hours["fixed"]
    assert hours["planned"] <= hours["fixed"]
    assert all(0.9 < s["attainment_frac"] <= 1.0 for s in found["replay"]["strategies"])
    assert found["replay"]["unseen"]
    assert "<svg" in page.read_text(encoding="utf-8")
    assert json.loads((folder / "day.json").read_text(encoding="utf-8")) == found
    scaled = list(yaml.safe_load_all((folder / "keda.yaml").read_text(encoding="utf-8")))
    assert len(scaled) == len({s["plan_index"] for s in steps})
    commands = _launched(folder)
    names = [yaml.safe_load((out / "servers.yaml").read_text(encoding="utf-8"))["metadata"]["name"] for out in commands]
    assert sorted(names) == sorted(o["spec"]["scaleTargetRef"]["name"] for o in scaled)
    crontab = (folder / "crontab").read_text(encoding="utf-8")
    assert set(re.findall(r"kubectl scale deployment/(\S+)", crontab)) <= set(names)
    again = next(shlex.split(line.replace("\\%", "%")) for line in crontab.splitlines() if "plan-day" in line)
    assert again[again.index("--out") + 1] == str(folder)
    assert all(Path(again[i]).is_absolute() for i in (5, again.index("plan-day") + 1, again.index("--traffic") + 1))
    bounds = yaml.safe_load((folder / "dynamo-planner.yaml").read_text(encoding="utf-8"))["bounds"]
    assert [b["min_endpoint"] for b in bounds] == [s["replicas"]["replica"] for s in steps]
    assert (folder / "day.svg").read_text(encoding="utf-8").startswith("<svg")


def _launched(folder: Path) -> list[Path]:
    """The folders of launch files that the day's script writes, without what it then tells the cluster."""
    out = []
    for line in (folder / "launch.sh").read_text(encoding="utf-8").splitlines():
        if " export " in line:
            words = shlex.split(line)
            done = autotune(*words[words.index("export") :])
            assert done.returncode == 0, done.stderr
            out.append(Path(words[words.index("--out") + 1]))
            assert out[-1].parent == folder.parent / f"{folder.name}-launch"
    return out


def test_pools(tmp_path: Path) -> None:
    """A morning in which long prompts join the answers: both pools are enough for each hour, and their ratio moves."""
    prompts, answers = (
        joined_days(read_traffic(f"tests/data/azure_llm_2023_{name}.csv"), shape, days=1).splitlines()
        for name, shape in (
            ("code", DayShape(peak_per_s=6.0, quiet_frac=0.02)),
            ("conv", DayShape(peak_per_s=0.2, quiet_frac=1.0)),
        )
    )
    log = tmp_path / "log.csv"
    morning = [line for line in prompts[1:] + answers[1:] if "05" <= line.partition(" ")[2][:2] <= "08"]
    log.write_text("\n".join([prompts[0], *sorted(morning)]), encoding="utf-8")
    slow = (
        "cluster.gpu=a100_40gb",
        "cluster.gpus=32",
        "constraints.ttft_ms=1500",
        "constraints.tpot_ms=60",
        "constraints.tpot_p95_ms=90",
    )
    asked = [w for s in ("search.disaggregated=only", *slow) for w in ("--set", s)]
    found = planned(str(log), "--plans", "1", "--out", str(tmp_path / "day"), *asked)
    (out,) = _launched(tmp_path / "day")
    prefix = yaml.safe_load((out / "kustomization.yaml").read_text(encoding="utf-8"))["namePrefix"]
    patches = [yaml.safe_load((out / f"patch-{r}.yaml").read_text(encoding="utf-8")) for r in ("prefill", "decode")]
    scaled = yaml.safe_load_all((tmp_path / "day" / "keda.yaml").read_text(encoding="utf-8"))
    assert [o["metadata"]["name"] for o in scaled] == [prefix + p["metadata"]["name"] for p in patches]
    assert all(p["kinds"][0]["role"] == "prefill" for p in found["plans"])
    for step in found["steps"]:
        kinds, workers = found["plans"][step["plan_index"]]["kinds"], step["replicas"]
        assert step["gpus"] == sum(kind["gpus"] * workers[kind["role"]] for kind in kinds)
        most = min(kind["capacity_per_s"]["most"] * workers[kind["role"]] for kind in kinds)
        assert step["planned_per_s"] * (1 - 1e-9) <= step["capacity_per_s"] <= most
        assert step["prefill_per_decode"] == workers["prefill"] / workers["decode"]
    assert len({step["prefill_per_decode"] for step in found["steps"]}) > 1
    assert all(s["attainment_frac"] > 0.8 for s in found["replay"]["strategies"])


def test_a_larger_cluster_takes_no_more_gpu_hours_of_pools(log: str) -> None:
    """Of 6 to 64 GPUs a load that few workers take costs the same, and a worker takes as much."""
    fixed = ("search.disaggregated=only", "baseline=", "cluster.gpus_per_node=8")
    words = [(*fixed, f"cluster.gpus={gpus}") for gpus in (6, 64)]
    found = [planned(log, *(w for setting in own for w in ("--set", setting))) for own in words]
    hours = [day["total"]["gpu_hours"] for day in found]
    assert hours[1] == pytest.approx(hours[0])
    steps = [[step["capacity_per_s"] for step in day["steps"]] for day in found]
    assert steps[1] == pytest.approx(steps[0])


def test_a_cluster_that_is_too_small(log: str) -> None:
    """Where two GPUs are all there are, the answer is there and says in which steps load finds no room."""
    done = autotune("plan-day", STUDY, "--traffic", log, "--set", "cluster.gpus=2", "--json")
    assert done.returncode == EXIT_INFEASIBLE, done.stderr
    found = json.loads(done.stdout)
    assert not found["keeps"]
    assert all((s["short_frac"] > 0.0) == (s["capacity_per_s"] < s["planned_per_s"]) for s in found["steps"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--step", "7m"), "divide a day"),
        (("--step", "2m", "--set", "cluster.gpus=2"), "to start or drain"),
        (("--set", "constraints.tpot_ms=0.1"), "at any load"),
    ],
)
def test_mistakes(log: str, words: tuple[str, ...], message: str) -> None:
    """A step that does not fit, one too short to start in, and limits that nothing keeps are errors that say so."""
    done = autotune("plan-day", STUDY, "--traffic", log, *words)
    assert done.returncode == EXIT_INPUT
    assert message in done.stderr


def test_a_folder_of_others_is_left_alone(log: str, tmp_path: Path) -> None:
    """Files that no earlier plan-day wrote are not overwritten."""
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    done = autotune("plan-day", STUDY, "--traffic", log, "--out", str(tmp_path))
    assert done.returncode == EXIT_INPUT
    assert "--out" in done.stderr
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "mine"


def test_further_types_of_gpus_are_said_to_beleft_out() -> None:
    """A day is planned on the cluster's own type; the answer names those that it is not planned on."""
    from autotune.planning.document import left_out
    from autotune.study import load_study

    study = load_study(STUDY, ['cluster.also=[{gpus=16, gpu="h200"}]', "search.gpus=[32]"])
    also, opened = left_out(study)
    assert "16 x h200_sxm" in also
    assert "64 x h100_sxm" in also
    assert "search.gpus" in opened
    assert left_out(load_study(STUDY)) == []
