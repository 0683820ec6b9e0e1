"""Traffic that comes and goes, through `retune`: the two kinds are judged together."""

from __future__ import annotations

from pathlib import Path

from autotune.retuning.retune_once import Outcome, retune
from autotune.study import study_from_document
from tests.year import HOUR_S, START_S, WINDOW_S, write_log

SHORT, LONG = (85.0, 400), (0.3, 12_000)
"""Requests per second and prompt tokens: many for which two replicas are right, few for which one of TP2 is."""


def test_traffic_that_alternates_does_not_switch_each_time(tmp_path: Path) -> None:
    """A plan that was left for other traffic is not left again for it: who sees that window alone would switch."""
    study = study_from_document(
        {
            "name": "two kinds of traffic",
            "engine": "vllm",
            "model": "llama-3.1-8b",
            "cluster": {"gpus": 2, "gpu": "h100"},
            "workload": {"isl": 400, "osl": 150},
            "constraints": {"ttft_ms": 450, "tpot_ms": 50},
            "search": {"max_num_batched_tokens": [4096]},
            "retune": {"min_p_better": 0.6},
            "baseline": {"plan": "TP1"},
        },
        Path("two.toml"),
    )
    log = tmp_path / "requests.csv"

    def at(hour: int, folder: str) -> Outcome:
        now_s = START_S + hour * HOUR_S
        return retune(
            study, str(log), tmp_path / folder, window_s=WINDOW_S, now_s=now_s, clock_s=now_s, apply=folder == "state"
        )

    decided = []
    for hour, traffic in ((0, LONG), (2, SHORT), (4, LONG)):
        write_log(log, START_S + hour * HOUR_S, traffic, seed=1)
        decided.append(at(hour, "state").entry)
    assert [entry["decision"] for entry in decided] == ["switch", "switch", "keep"]
    assert decided[1]["candidate"]["plan"] == decided[0]["current"]["plan"] == decided[2]["current"]["plan"]
    assert at(4, "alone").entry["decision"] == "switch"
