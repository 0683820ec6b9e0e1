"""`python -m tools.engines [ENGINE...]`: exported commands and wrong ones, read by the engines in `.engines`.

Prints what differs from what we expect, and exits with 1 where anything does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.engines.cases import MODELS, Case, exported, wrong
from tools.engines.configs import write_config

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".engines" / "bin" / "python"


def installed(engine: str) -> str:
    """The version that is in `.engines`."""
    code = f"import importlib.metadata as m; print(m.version({engine!r}))"
    done = subprocess.run([PYTHON, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603  # ours
    return done.stdout.strip()


def read(engine: str, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """The engine's verdict on each command."""
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS.values():
            write_config(Path(folder) / name, name)
        given = [{**case.plain(), "config": str(Path(folder) / case.config)} for case in cases]
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(  # noqa: S603  # our own script
            [PYTHON, Path(__file__).with_name(f"read_{engine}.py")],
            input=json.dumps(given), capture_output=True, text=True, env=env, cwd=folder, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{engine} could not be run: {done.stderr[-2000:]}")
        return json.loads(done.stdout[done.stdout.index('[{"id"') :])


def check(engine: str) -> tuple[int, list[str]]:
    """How many commands were read, and what is not as expected."""
    version = installed(engine)
    cases = [*(case for model in MODELS for case in exported(engine, model, version)), *wrong(engine)]
    problems = []
    for case, verdict in zip(cases, read(engine, cases), strict=True):
        error, seen = verdict["error"], verdict["seen"]
        if case.gpus is None and error is None:
            problems.append(f"{case.id}: should be refused, and is taken")
        elif case.gpus is not None and error is not None:
            problems.append(f"{case.id}: {error[:400]}\n    {' '.join(case.argv)}")
        elif case.gpus is not None and seen["gpus"] != case.gpus:
            problems.append(f"{case.id}: {seen['gpus']} GPUs a server, by our reading {case.gpus}")
    refused = sum(case.gpus is None for case in cases)
    print(f"{engine} {version}: {len(cases) - refused} exported commands and {refused} wrong ones read")  # noqa: T201
    return len(cases), problems


def main() -> None:
    """Every engine, or those that are named."""
    problems = [p for engine in sys.argv[1:] or ("vllm", "sglang") for p in check(engine)[1]]
    print("\n".join(problems) or "all as expected")  # noqa: T201
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
