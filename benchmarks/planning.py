"""Whole days and whole clusters, stated with their sizes: `python -m benchmarks.planning`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from autotune.planning import DayQuestion, DayShape, divide_cluster, joined_days, load_models_study, plan_day
from autotune.traffic.load import load_study
from autotune.traffic.read import read_traffic

ROOT = Path(__file__).parent.parent
TRACE = ROOT / "tests" / "data" / "azure_llm_2023_conv.csv"
CLUSTER = ROOT / "studies" / "clusters" / "four-models-256xh100.toml"
DAY = ROOT / "studies" / "day-llama-70b-64xh100.toml"


def main() -> None:
    """Print every figure."""
    quick = "--quick" in sys.argv
    division()
    for overrides in ((), ("search.disaggregated=auto",)):
        day(days=2 if quick else 7, peak_per_s=1.0 if quick else 4.0, overrides=overrides)


def division() -> None:
    """CPU seconds of `divide`."""
    start = time.process_time()
    found = divide_cluster(load_models_study(CLUSTER))
    cpu_s = time.process_time() - start
    gpus = sum(kind.units * kind.unit_gpus for kind in found.study.types)
    print(f"divide: {len(found.study.models)} models on {gpus} GPUs: {cpu_s:.1f} CPU-s")


def day(*, days: int, peak_per_s: float, overrides: tuple[str, ...] = ()) -> None:
    """CPU seconds of `plan-day` on a log of days, reading it included."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.csv"
        content = joined_days(read_traffic(str(TRACE)), DayShape(peak_per_s=peak_per_s), days=days)
        log.write_text(content, encoding="utf-8")
        start = time.process_time()
        found = plan_day(load_study(DAY, overrides), str(log), read_traffic(str(log)), DayQuestion())
        cpu_s = time.process_time() - start
    requests = found.loads.requests.times_s.size
    asked = "".join(f", {setting}" for setting in overrides)
    print(f"plan-day: {days} days, {requests:,} requests{asked}, {len(found.plans)} plans deep: {cpu_s:.1f} CPU-s")


if __name__ == "__main__":
    main()
