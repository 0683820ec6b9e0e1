"""`python -m tests.cases [FOLDER]`: every case of a folder, right or wrong; exit code 1 where one is wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.cases.checks import cases, wrong

VARIABLE = "AUTOTUNE_CASES"
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "cases"


def main() -> int:
    """Check the folder that is named, that of the environment, or the one beside the repository."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get(VARIABLE, BESIDE))
    if not folder.is_dir():
        sys.stdout.write(f"SKIPPED: there is no folder {folder}; name one, or set {VARIABLE}\n")
        return 0
    checked = failed = 0
    for case in cases(folder):
        said = wrong(case)
        checked, failed = checked + 1, failed + (said is not None)
        sys.stdout.write(f"{'right' if said is None else 'WRONG'}  {case.name}{'' if said is None else f': {said}'}\n")
    sys.stdout.write(f"{checked - failed} right, {failed} wrong\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
