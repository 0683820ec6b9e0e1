"""Fuzz every reader with atheris for a fixed time: `python -m tests.fuzz [SECONDS] [READER ...]`.

Each reader runs in a process of its own under libFuzzer's limits: 1 GB of memory, and two seconds (of CPU, so that a
busy machine finds nothing that is not there) for one input. The last line says how many inputs were tried.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.limits import INPUT_S, MEMORY_MB
from tests.fuzz.mutate import NASTY

SECONDS = 240
HANG_S = 30
"""Wall time after which an input counts as a hang however busy the machine is."""
NEEDS = "atheris is not installed: pip install atheris (wheels for Linux on x86-64 and ARM, CPython 3.11 to 3.13)"


def main() -> int:
    """Every reader in turn; exit code 1 where one failed."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] == "--one":
        _fuzz(arguments[1], arguments[2:])
        return 0
    if find_spec("atheris") is None:
        sys.stdout.write(f"SKIPPED: {NEEDS}\n")
        return 0
    from tests.fuzz.readers import READERS

    seconds = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else SECONDS
    names = arguments or list(READERS)
    each = max(seconds // len(names), 1)
    tried, failed = 0, []
    for name in names:
        runs, error = _run(name, READERS[name].seeds, each)
        tried += runs
        failed += [name] * bool(error)
        sys.stdout.write(f"{name}: {runs:,} inputs in {each} s{': FAILED' if error else ''}\n{error}")
        sys.stdout.flush()
    sys.stdout.write(f"inputs={tried} readers={len(names)} failed={len(failed)}\n")
    return int(bool(failed))


def _run(name: str, seeds: Sequence[bytes], seconds: int) -> tuple[int, str]:
    """Inputs tried, and what was found wrong."""
    with tempfile.TemporaryDirectory(prefix="autotune-fuzz-") as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for i, seed in enumerate(seeds):
            (corpus / f"seed{i}").write_bytes(seed)
        words = Path(folder) / "words.dict"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in NASTY if 0 < len(word) <= 64), encoding="ascii")
        done = subprocess.run(
            [
                sys.executable, "-m", "tests.fuzz", "--one", name, f"-max_total_time={seconds}", f"-dict={words}",
                f"-rss_limit_mb={MEMORY_MB}", f"-timeout={HANG_S}", "-max_len=65536", "-print_final_stats=1",
                f"-artifact_prefix={folder}/", str(corpus),
            ],
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        found = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
        runs = int(found.group(1)) if found else 0
        if not done.returncode and runs:
            return runs, ""
        inputs = [p.read_bytes()[:400] for p in Path(folder).iterdir() if re.match(r"crash|timeout|oom|leak", p.name)]
        return runs, f"{done.stdout[-2000:]}\n{done.stderr[-2500:]}\ninputs: {inputs}\n"


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _fuzz(name: str, arguments: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["autotune", "costmodel"]):  # all that is loaded would take minutes
        from costmodel.errors import visible
        from tests.fuzz.readers import READERS
    reader = READERS[name]
    with tempfile.TemporaryDirectory(prefix="autotune-fuzz-input-") as made:
        folder = Path(made)

        def one(data: bytes) -> None:
            before = time.process_time()
            said = reader.run(data, folder)
            took_s = time.process_time() - before
            if took_s > INPUT_S:
                raise TimeoutError(f"{took_s:.1f} s of CPU for {len(data)} bytes")
            if said is not None and said != visible(said):
                raise ValueError(f"control characters in {said!r}")

        atheris.Setup([sys.argv[0], *arguments], one)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
