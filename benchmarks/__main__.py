"""Speed, stated with its shapes and machine: `python -m benchmarks [--quick]`."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.space import enumerate_space
from autotune.study import Study, load_study

STUDIES = Path(__file__).parent.parent / "studies"
DEEPSEEK = STUDIES / "deepseek-v3-128xh200.toml"


def main() -> None:
    """Print every figure."""
    processors = os.cpu_count()
    print(
        f"machine: {platform.machine()}, {processors} processors, Python {platform.python_version()}, numpy {np.__version__}"
    )
    batch_speed(load_study(DEEPSEEK))
    commands()
    scaling("--quick" in sys.argv)
    peer()


def batch_speed(study: Study) -> None:
    """Evaluations per CPU-second: every vLLM plan of DeepSeek-V3 on 128 H200 at 200 concurrencies, breakdown included."""
    space = enumerate_space(study.arch, gpus=study.cluster.gpus, engine="vllm")
    rows = KnobGrid.of(
        study, [Variant(candidate=c, weight_dtype=None, kv_dtype=None) for c in space.candidates], [4096]
    )
    index = np.repeat(np.arange(len(space.candidates)), 200)
    many = rows.take(index)
    concurrency = np.tile(np.geomspace(8, 8000, 200), len(space.candidates))
    many.evaluate(concurrency)
    rates = []
    for _ in range(5):
        start = time.process_time()
        many.evaluate(concurrency)
        rates.append(len(index) / (time.process_time() - start))
    print(
        f"batch: {len(index):,} plan x knob evaluations with breakdown, {np.median(rates):,.0f} per CPU-second (median of 5)"
    )


def _run(*arguments: str) -> tuple[float, float, float, int]:
    """Wall seconds, CPU seconds, peak MB and exit code of one `autotune` process."""
    script = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL); "
        "u = resource.getrusage(resource.RUSAGE_CHILDREN); print(u.ru_utime + u.ru_stime, u.ru_maxrss / 1024, code)"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, sys.executable, "-m", "autotune", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    wall_s = time.perf_counter() - start
    cpu, peak, code = done.stdout.split()
    return wall_s, float(cpu), float(peak), int(code)


def commands() -> None:
    """Whole processes, storage written anew each time."""
    cases = {
        "autotune --help": ["--help"],
        "reference study": ["tune", str(STUDIES / "reference-128.toml")],
        "DeepSeek-V3, 128 H200, three engines": ["tune", str(DEEPSEEK), "--set", "engine=any"],
        "DeepSeek-V3, 128 H200, disaggregated plans too": [
            "tune", str(DEEPSEEK), "--set", "search.disaggregated=auto",
        ],
        "DeepSeek-V3, 16,384 H200, three engines": [
            "tune", str(DEEPSEEK), "--set", "engine=any", "--set", "cluster.gpus=16384", "--set", "baseline.plan=ADP8+EP",
        ],
        "graph of the reference plan, Chakra": ["dag", str(STUDIES / "reference-128.toml"), "--format", "chakra"],
        "graph of DeepSeek-V3 on 128 GPUs, Chakra": [
            "dag", str(DEEPSEEK), "--plan", "R1/PP8/TP4/DP4/EP16", "--format", "chakra",
        ],
    }  # fmt: skip
    for name, arguments in cases.items():
        walls, peaks, codes = [], [], set()
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                extra = [] if arguments[0] == "--help" else ["--out", str(Path(folder) / "out")]
                wall_s, _, peak, code = _run(*arguments, *extra)
            walls.append(wall_s)
            peaks.append(peak)
            codes.add(code)
        print(f"{name}: {np.median(walls):.2f} s wall (median of 3), {max(peaks):.0f} MB, exit {codes}")


def scaling(quick: bool) -> None:
    """Wall time against the number of GPUs, three engines."""
    for gpus in (64, 1024) if quick else (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384):
        wall_s, cpu_s, peak, _ = _run(
            "tune", str(DEEPSEEK), "--no-storage", "--set", "engine=any", "--set", f"cluster.gpus={gpus}",
            "--set", "baseline.plan=ADP8+EP",
        )  # fmt: skip
        print(f"N = {gpus:>6,}: {wall_s:.2f} s wall, {cpu_s:.2f} s CPU, {peak:.0f} MB")


def peer() -> None:
    """The same DeepSeek study through NVIDIA's AIConfigurator, where it is installed."""
    command = os.environ.get("AICONFIGURATOR") or shutil.which("aiconfigurator")
    if command is None:
        print("aiconfigurator: not installed (pip install aiconfigurator, or AICONFIGURATOR=path), no comparison")
        return
    with tempfile.TemporaryDirectory() as folder:
        _, ours_s, _, _ = _run("tune", str(DEEPSEEK), "--out", folder)
        arguments = [
            command, "cli", "default", "--model-path", "deepseek-ai/DeepSeek-V3", "--total-gpus", "128",
            "--system", "h200_sxm", "--backend", "vllm", "--isl", "4000", "--osl", "1000",
            "--ttft", "5000", "--tpot", "50",
        ]  # fmt: skip
        before = os.times()
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=folder, check=False)
        after = os.times()
    if done.returncode != 0:
        print(f"aiconfigurator: exit {done.returncode}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
        return
    theirs_s = after.children_user + after.children_system - before.children_user - before.children_system
    print(
        f"aiconfigurator, same study: {theirs_s:.1f} CPU-seconds; ours {ours_s:.2f}: {theirs_s / ours_s:.0f} times faster"
    )


if __name__ == "__main__":
    main()
