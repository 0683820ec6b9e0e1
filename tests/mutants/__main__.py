"""`python -m tests.mutants`: make each mistake in a copy of the repository and see whether a test notices.

Prints caught or survived for each; exit code 1 where one survives, 2 where the tests fail without any mistake.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import CHANGES
from tests.mutants.change import ROOT, Change

COPIED = ("autotune", "benchmarks", "costmodel", "studies", "tests", "tools", "pyproject.toml", "README.md")
OF_PHYSICS = ("tests/golden", "tests/costmodel", "tests/validation/test_validate.py")
OF_RANKING = (
    "tests/scoring",
    "tests/tuning/test_solve.py",
    "tests/tuning/test_rate.py",
    "tests/tuning/test_front.py",
    "tests/tuning/test_brute_force.py",
    "tests/comparison/test_switching.py",
    "tests/comparison/test_compare.py",
    "tests/comparison/test_capacity.py",
    "tests/retuning/test_decide.py",
    "tests/tuning/test_sensitivity.py",
    "tests/tuning/test_tune.py",
    "tests/test_shipped.py",
    "tests/tuning/test_pools.py",
)
"""The tests that are asked, quick and near ones first: the first that fails ends a run."""
NEAREST = {
    "costmodel/disaggregated": ("tests/costmodel/test_pools.py",),
    "costmodel/serving": ("tests/simulation/test_closed_form.py",),
    "costmodel/estimate": ("tests/costmodel/test_request_mix.py", "tests/costmodel/test_error_model.py"),
    "costmodel/simulation": ("tests/simulation",),
    "autotune/tuning": ("tests/tuning/test_front.py", "tests/tuning/test_sensitivity.py"),
    "autotune/comparison": (
        "tests/comparison/test_verdict.py",
        "tests/comparison/test_switching.py",
        "tests/comparison/test_compare.py",
    ),
}
"""By folder, those that are asked before all others."""
LONGEST_S = 900.0
"""A run that takes longer hangs, which is noticed too."""
PASSED, FAILED, BROKEN = 0, 1, 2
"""pytest's exit codes; any other one, and an error outside of a test, means that the tests could not be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the tests said of one mistake."""

    number: int
    change: Change
    word: str
    """`caught`, `survived`, or `broken` where the tests could not run."""
    by: str
    """The test that noticed, or what went wrong."""

    def line(self) -> str:
        """For the terminal."""
        return f"{self.number:3d} {self.word:8} {self.change.file}: {self.change.old.strip()!r} -> " + (
            f"{self.change.new.strip()!r}" + (f" ({self.by})" if self.by else "")
        )


def ask(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Exit code of the tests in a copy of the repository, and the first that failed."""
    command = [sys.executable, "-m", "pytest", "-x", "-n", "0", "--hypothesis-seed=1", "--tb=no", *tests]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return FAILED, "no end"
    said = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    by = said[0].split(" - ")[0] if said else ""
    return BROKEN if by.startswith("ERROR") and "::" not in by else done.returncode, by


@contextmanager
def made(folder: Path, change: Change, number: int) -> Iterator[None]:
    """The mistake in the copy, taken back afterwards."""
    path = folder / change.file
    before, about = path.read_text(encoding="utf-8"), path.stat()
    try:
        path.write_text(change.applied(before), encoding="utf-8")
        # Python takes a cached module for the file's where size and second agree: each change has a second of its own
        os.utime(path, (number, number))
        yield
    finally:
        path.write_text(before, encoding="utf-8")
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def outcome(folder: Path, number: int, change: Change) -> Outcome:
    """Make one mistake and ask the tests, those of its own kind first."""
    nearest = NEAREST.get(change.file.rpartition("/")[0], ())
    near, far = (OF_PHYSICS, OF_RANKING) if change.file.startswith("costmodel/") else (OF_RANKING, OF_PHYSICS)
    with made(folder, change, number):
        code, by = ask(folder, nearest) if nearest else (PASSED, "")
        if code == PASSED:
            code, by = ask(folder, (*near, *far))
    word = {PASSED: "survived", FAILED: "caught"}.get(code, "broken")
    return Outcome(number=number, change=change, word=word, by=by if code != PASSED else "")


def copy(to: Path) -> Path:
    """A copy of what the tests need."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns(".hypothesis"))
        else:
            shutil.copy2(source, to / name)
    return to


def run(numbers: Sequence[int], jobs: int, *, trust: bool) -> int:
    """Make the mistakes with these numbers, several at a time; the exit code."""
    with tempfile.TemporaryDirectory(prefix="autotune-mutants-") as temporary:
        folders: queue.Queue[Path] = queue.Queue()
        for job in range(jobs):
            folders.put(copy(Path(temporary) / str(job)))
        if not trust:
            code, by = ask(folders.queue[0], (*OF_PHYSICS, *OF_RANKING))
            if code != PASSED:
                sys.stderr.write(f"the tests fail as it is: {by or code}\n")
                return 2

        def one(number: int) -> Outcome:
            folder = folders.get()
            try:
                return outcome(folder, number, CHANGES[number - 1])
            finally:
                folders.put(folder)

        wrong = 0
        with ThreadPoolExecutor(jobs) as pool:
            for found in pool.map(one, numbers):
                sys.stdout.write(found.line() + "\n")
                sys.stdout.flush()
                wrong += found.word != "caught"
    sys.stdout.write(f"{len(numbers) - wrong} of {len(numbers)} caught\n")
    return 1 if wrong else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", help="numbers of the changes to make, as 3,17,20-24")
    parser.add_argument("--jobs", type=int, default=1, help="how many copies work side by side")
    parser.add_argument("--trust", action="store_true", help="do not run the tests without any change first")
    parser.add_argument("--list", action="store_true", help="print the changes and make none")
    options = parser.parse_args()
    numbers = list(range(1, len(CHANGES) + 1)) if options.only is None else _numbers(options.only)
    if any(not 1 <= n <= len(CHANGES) for n in numbers):
        parser.error(f"--only: must be from 1 to {len(CHANGES)}")
    if options.list:
        for n in numbers:
            sys.stdout.write(Outcome(number=n, change=CHANGES[n - 1], word="", by="").line() + "\n")
        return 0
    return run(numbers, max(options.jobs, 1), trust=options.trust)


def _numbers(text: str) -> list[int]:
    out: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        out += range(int(first), int(last or first) + 1)
    return out


if __name__ == "__main__":
    sys.exit(main())
