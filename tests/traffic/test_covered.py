"""What of a window a log covers, and what it says of the rest: nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autotune.traffic.options import ReadOptions
from autotune.traffic.read import read_traffic
from tests.traffic.helpers import iso, requests, written

HALF_HOUR = requests(3600)
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
DAY_S = 86400.0


def log_of(*shifts_s: float) -> str:
    """Half an hour of traffic, so many times."""
    rows = (f"{iso(r.at_s + shift)},{r.prompt},{r.output}\n" for shift in shifts_s for r in HALF_HOUR)
    return HEADER + "".join(rows)


def test_a_log_shorter_than_the_window_is_judged_by_itself(tmp_path: Path) -> None:
    """The rate is that of the half hour, and what share of the day that is, is said."""
    log = read_traffic(written(tmp_path, log_of(0.0)), window_s=DAY_S)
    assert log.refusal is None
    assert log.profile().rate.mean_per_s == pytest.approx(2.0, rel=0.05)
    assert log.to_json()["covered_frac"] == pytest.approx(HALF_HOUR[-1].at_s / DAY_S)
    assert any("covers 2." in text and "of the window" in text for text in log.assumptions)


def test_too_small_a_share_is_refused(tmp_path: Path) -> None:
    """Half an hour of a month, or of a day where more was asked for."""
    source = written(tmp_path, log_of(0.0))
    for window_s, least in ((30 * DAY_S, 0.001), (DAY_S, 0.5)):
        refusal = read_traffic(source, window_s=window_s, options=ReadOptions(least_cover_frac=least)).refusal
        assert refusal is not None
        assert "of the window, less than" in refusal


def test_a_gap_is_no_silence(tmp_path: Path) -> None:
    """Two half hours five hours apart, within a window that a log before them covers: the gap has no rate."""
    log = read_traffic(written(tmp_path, log_of(-9000.0, 0.0, 18000.0)), window_s=21000.0)
    assert log.covered is not None
    assert len(log.covered.gaps_s) == 1
    profile = log.profile()
    assert profile.rate.mean_per_s == pytest.approx(2.0, rel=0.1)
    assert min(profile.rate.levels_per_s) > 0.5
    assert any("not logged" in text for text in log.assumptions)


def test_quiet_time_is_traffic(tmp_path: Path) -> None:
    """A log with few requests has long pauses by chance: they count."""
    draw = np.random.default_rng(2)
    times = np.cumsum(draw.exponential(900.0, 400))
    rows = "".join(f"{iso(float(t))},100,10\n" for t in times)
    log = read_traffic(written(tmp_path, HEADER + rows))
    assert log.covered is not None
    assert log.covered.gaps_s == ()
    assert log.profile().rate.mean_per_s == pytest.approx(1 / 900.0, rel=0.2)


def test_a_window_that_goes_on_after_the_log(tmp_path: Path) -> None:
    """An hour after its last request the log does not say that nobody came."""
    source = written(tmp_path, log_of(0.0))
    whole = read_traffic(source)
    later = read_traffic(source, window_s=7200.0, now_s=whole.end_s + 3600.0)
    assert later.profile().rate.mean_per_s == pytest.approx(whole.profile().rate.mean_per_s, rel=0.01)
    assert later.to_json()["covered_frac"] == pytest.approx(HALF_HOUR[-1].at_s / 7200.0, rel=0.01)
