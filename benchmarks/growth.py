"""How time and memory grow with GPUs, axes and evaluations: `python -m benchmarks.growth [--quick] [--out FILE]`.

Every row is a process of its own that runs `autotune tune` with a journal file and all result files, as users do; what
it spends in the model, in Optuna's storage and in output is measured inside it, in CPU seconds, so that a busy machine
does not change the shares. Wall time is printed beside it, and memory is the process's highest resident size.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import wraps
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

STUDY = Path(__file__).parent.parent / "studies" / "deepseek-v3-128xh200.toml"
GPUS = (8, 32, 128, 512, 2048, 8192, 32_768, 131_072)
BUDGETS = (2048, 4096, 8192, 16_384)
FEW = (
    "search.max_num_batched_tokens=[8192]",
    "search.concurrency=[512]",
)
AXES = (
    ("layout", FEW),
    ("+ token budget", (f"search.max_num_batched_tokens={list(BUDGETS)}", "search.concurrency=[512]")),
    ("+ requests in flight", (f"search.max_num_batched_tokens={list(BUDGETS)}",)),
    ("+ KV dtype", (f"search.max_num_batched_tokens={list(BUDGETS)}", 'search.kv_dtype=["bf16","fp8"]')),
    (
        "+ weight dtype",
        (
            f"search.max_num_batched_tokens={list(BUDGETS)}",
            'search.kv_dtype=["bf16","fp8"]',
            'search.weight_dtype=["fp8","bf16"]',
        ),
    ),
)
SAMPLED = ("search.dcp=[1,2,4,8]", "search.redundant_experts=[0,16,32,48,64]")
EVALUATIONS = (100, 1_000, 10_000, 100_000, 1_000_000)
LIMIT_S, LIMIT_MB = 60.0, 2_000.0
"""Of a million evaluations."""


def measure(overrides: Sequence[str]) -> dict[str, Any]:
    """One study in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="autotune-growth-") as folder:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.growth", "--one", folder, *overrides],
            capture_output=True,
            text=True,
            check=True,
        )
        found = json.loads(done.stdout.splitlines()[-1])
        found["wall_s"] = time.perf_counter() - start
        found["stored_mb"] = sum(p.stat().st_size for p in Path(folder).glob("journal.log")) / 1e6
    return found


def one(folder: str, overrides: Sequence[str]) -> None:
    """In the process: run the study with its doors watched, and print what it took."""
    import resource

    from click.testing import CliRunner

    from autotune import files
    from autotune.cli import stores
    from autotune.cli.main import cli
    from autotune.report import answer, document
    from autotune.report import files as texts
    from autotune.storage.store import Store
    from autotune.study import Study
    from autotune.tuning import answer_study as tuning
    from autotune.tuning import batches, executor
    from autotune.tuning.sampling import sampler

    spent = {"model": 0.0, "optuna": 0.0, "output": 0.0, "space": 0.0, "ranking": 0.0}
    counts = {"layouts": 0, "evaluations": 0}

    inside: list[str] = []  # parts that run now; what is spent belongs to the innermost
    since = time.process_time()

    def enter(part: str) -> None:
        nonlocal since
        now = time.process_time()
        if inside:
            spent[inside[-1]] += now - since
        since = now
        inside.append(part)

    def leave() -> None:
        nonlocal since
        now = time.process_time()
        spent[inside.pop()] += now - since
        since = now

    def timed(owner: Any, name: str, part: str) -> None:
        real = getattr(owner, name)

        @wraps(real)
        def watched(*arguments: Any, **options: Any) -> Any:
            enter(part)
            try:
                return real(*arguments, **options)
            finally:
                leave()

        setattr(owner, name, watched)

    def timed_steps(owner: Any, name: str, part: str) -> None:
        real = getattr(owner, name)

        @wraps(real)
        def watched(*arguments: Any, **options: Any) -> Any:
            steps = real(*arguments, **options)
            while True:
                enter(part)
                try:
                    found = next(steps)
                except StopIteration:
                    return
                finally:
                    leave()
                yield found

        setattr(owner, name, watched)

    real_score = executor.score

    def counted(study: Study, candidates: Any) -> Any:
        results = real_score(study, candidates)
        counts["layouts"] += len(results)
        counts["evaluations"] += len(results) * batches.evaluations(study)
        return results

    executor.score = counted  # type: ignore[assignment]
    timed(executor, "score", "model")
    for function in (batches.score_missing, batches.sample_missing):
        function.__kwdefaults__["scorer"] = executor.score  # bound when they were defined
    timed_steps(sampler, "sample", "optuna")
    timed(tuning, "study_space", "space")
    timed(tuning, "rank", "ranking")
    timed(tuning, "confidence", "ranking")
    timed(stores, "open_store", "optuna")
    for name in ("add", "records", "known_keys"):
        timed(Store, name, "optuna")
    outputs = (
        (document, "tune_document"),
        (document, "plans_csv"),
        (answer, "tune_report"),
        (texts, "to_json"),
        (files, "write_file"),
    )
    for owner, name in outputs:
        timed(owner, name, "output")
    settings = [x for o in overrides for x in ("--set", o)]
    before = time.process_time()
    done = CliRunner().invoke(cli, ["tune", str(STUDY), *settings, "--json", "--top", "0", "--out", folder])
    code = done.exit_code
    total_s = time.process_time() - before
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**counts, "cpu_s": total_s, "peak_mb": peak_mb, "exit": code, "spent": spent}))


COLUMNS = ("what", "layouts", "evaluations", "wall s", "CPU s", "peak MB", "eval/CPU s", "model", "Optuna", "output", "rest", "stored MB")  # fmt: skip


def row(what: str, found: dict[str, Any]) -> list[str]:
    """A line of the table."""
    total, spent = found["cpu_s"], found["spent"]
    shares = [spent["model"], spent["optuna"], spent["output"]]
    shares.append(max(total - sum(shares), 0.0))
    return [
        what, f"{found['layouts']:,}", f"{found['evaluations']:,}", f"{found['wall_s']:.1f}", f"{total:.2f}",
        f"{found['peak_mb']:.0f}", f"{found['evaluations'] / total:,.0f}",
        *(f"{share / total:.0%}" for share in shares), f"{found['stored_mb']:.1f}",
    ]  # fmt: skip


def growth(found: Sequence[dict[str, Any]], of: str) -> float:
    """Exponent of CPU time against `of` over the largest step of both: 1 is in proportion."""
    steps = [(a, b) for a, b in pairwise(found) if b[of] > 1.2 * a[of]]
    return max((log(b["cpu_s"] / a["cpu_s"]) / log(b[of] / a[of]) for a, b in steps), default=0.0)


def cases(quick: bool) -> Iterator[tuple[str, str, list[tuple[str, tuple[str, ...]]]]]:
    """Every part: its title, what its time is to be in proportion to, and its rows."""
    gpus = (8, 128) if quick else GPUS
    some = ("engine=any", "baseline.plan=ADP8+EP")
    yield (
        "GPUs (layouts of three engines, four token budgets, requests in flight solved)", "evaluations",
        [(f"{n:,} GPUs", (f"cluster.gpus={n}", *some)) for n in gpus],
    )  # fmt: skip
    yield (
        "Axes (1,024 GPUs)", "evaluations",
        [(f"{i} {name}", ("cluster.gpus=1024", *some, *opened)) for i, (name, opened) in enumerate(AXES, 1)],
    )  # fmt: skip
    yield (
        "Sampled by TPE (1,024 GPUs, 6,758 layouts)", "evaluations",
        [
            (f"{n:,} trials", ("cluster.gpus=1024", *some, *SAMPLED, f"search.trials={n}", "search.exhaustive_limit=0"))
            for n in ((50, 100) if quick else (100, 300, 1000, 3000))
        ],
    )  # fmt: skip
    yield (
        "Evaluations (8 GPUs for the first, else 128)", "evaluations",
        [(f"about {n:,}", knobs(n)) for n in (EVALUATIONS[:3] if quick else EVALUATIONS)],
    )  # fmt: skip


def knobs(evaluations: int) -> tuple[str, ...]:
    """Overrides that have about so many evaluations: few layouts, then many, then knobs inside each."""
    if evaluations <= EVALUATIONS[0]:
        return ("engine=any", "cluster.gpus=8", "baseline.plan=ADP8+EP", *FEW)
    each = -(-evaluations // 846)  # valid layouts of three engines on 128 GPUs
    budgets = min(each, 8)
    flights = -(-each // budgets)
    in_flight = [round(8 * 250 ** (i / max(flights - 1, 1))) + i for i in range(flights)]
    return (
        "engine=any",
        f"search.concurrency={in_flight}",
        f"search.max_num_batched_tokens={[2048 + 2048 * i for i in range(budgets)]}",
    )


def main() -> None:
    """Print the tables, and write them where asked."""
    if "--one" in sys.argv:
        at = sys.argv.index("--one")
        one(sys.argv[at + 1], sys.argv[at + 2 :])
        return
    lines: list[str] = []

    def say(line: str = "") -> None:
        lines.append(line)
        print(line, flush=True)

    say(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    )
    missed = 0
    for title, of, rows in cases("--quick" in sys.argv):
        say()
        say(f"### {title}")
        say()
        say("| " + " | ".join(COLUMNS) + " |")
        say("|" + "---|" * len(COLUMNS))
        found = []
        for what, overrides in rows:
            found.append(measure(overrides))
            say("| " + " | ".join(row(what, found[-1])) + " |")
        say()
        say(
            f"CPU time grows with the power {growth(found, of):.2f} of the {of} at the steepest step (1: in proportion)."
        )
        largest = found[-1]
        if largest["evaluations"] >= EVALUATIONS[-1]:
            held = largest["cpu_s"] <= LIMIT_S and largest["peak_mb"] <= LIMIT_MB
            missed += not held
            say(
                f"{largest['evaluations']:,} evaluations took {largest['cpu_s']:.1f} CPU seconds "
                f"({largest['wall_s']:.1f} s wall) and {largest['peak_mb']:,.0f} MB; at most {LIMIT_S:.0f} s and "
                f"{LIMIT_MB:,.0f} MB: {'held' if held else 'MISSED'}."
            )
    if "--out" in sys.argv:
        Path(sys.argv[sys.argv.index("--out") + 1]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.exit(int(missed > 0))


if __name__ == "__main__":
    main()
