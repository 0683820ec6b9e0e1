"""One plan for two kinds of traffic of which each is served best by another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from autotune.comparison.best import capacity_study, drawn_capacities
from autotune.retuning import decide_window
from autotune.retuning.decide_window import WeighedWindow, best_over
from autotune.scoring.best_knobs import score_launches
from autotune.scoring.value_and_gain import served_within_limits
from autotune.study import Study, study_from_document
from autotune.tuning import PlanResult
from costmodel.plan.columns import Floats


def traffic(isl: int, osl: int, rate_per_s: float) -> Study:
    """An 8B model on eight small GPUs, where long prompts want several GPUs each and short ones do not."""
    return study_from_document(
        {
            "name": "two",
            "engine": "vllm",
            "model": "llama-3.1-8b",
            "cluster": {"gpus": 8, "gpu": "l40s"},
            "workload": {"isl": isl, "osl": osl, "request_rate_per_s": rate_per_s},
            "constraints": {"ttft_ms": 800, "tpot_ms": 50},
            "search": {"max_num_batched_tokens": [4096]},
        },
        Path("two.toml"),
    )


CHAT, DOCUMENTS = traffic(400, 150, 60.0), traffic(8000, 60, 1.0)


def served(study: Study, plan: PlanResult) -> float:
    """Requests per second within the limits that can be expected of a plan."""
    found = score_launches(capacity_study(study), [plan])
    rates = served_within_limits(
        study, drawn_capacities(capacity_study(study), [p if p.feasible else None for p in found])
    )
    assert rates is not None
    return float(rates.mean())


def test_of_launches_that_serve_alike_the_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at in addition stands first; what serves a thousandth more cannot be told apart from it."""
    also = score_launches(capacity_study(CHAT), [winner(0.0)])

    def drawn(study: Study, plans: Sequence[PlanResult | None]) -> Floats:  # noqa: ARG001
        return 30.0 + 0.01 * np.arange(len(plans))[:, None] * np.ones((1, 2))

    monkeypatch.setattr(decide_window, "drawn_capacities", drawn)
    found = best_over([WeighedWindow(study=CHAT, share=1.0)], also)
    assert found is not None
    assert found.launch == also[0].launch


@lru_cache
def winner(chat_share: float) -> PlanResult:
    """The best plan where so much of the time is chat and the rest documents."""
    windows = [(CHAT, chat_share), (DOCUMENTS, 1.0 - chat_share)]
    plan = best_over([WeighedWindow(study=study, share=share) for study, share in windows])
    assert plan is not None
    return plan


def test_each_kind_of_traffic_has_its_own_winner() -> None:
    """Each winner serves more of its own traffic than the other does."""
    chat, documents = winner(1.0), winner(0.0)
    assert chat.plan != documents.plan
    assert served(CHAT, chat) > served(CHAT, documents)
    assert served(DOCUMENTS, documents) > served(DOCUMENTS, chat)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_the_joint_winner_serves_most_over_both(share: float) -> None:
    """Over both kinds in proportion, no winner of one of them serves more than the joint one."""
    joint = winner(share)
    values = {
        name: share * served(CHAT, plan) + (1.0 - share) * served(DOCUMENTS, plan)
        for name, plan in (("joint", joint), ("chat", winner(1.0)), ("documents", winner(0.0)))
    }
    assert values["joint"] >= max(values.values()) * (1.0 - 1e-9)
