"""`python -m tools.engines.diff [ENGINE...]`: where an engine's own parser differs from our newest list of options.

The engine is that in `.engines/newer` where one was put there, else that in `.engines`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.engines import ENGINES
from tools.engines.__main__ import PYTHON, ROOT

NEWER = ROOT / ".engines" / "newer"
MARK = "@options "


def their_options(engine: str) -> Mapping[str, Mapping[str, Any]]:
    """Option -> spellings, default and choices, as the engine's parser has them. Raises `RuntimeError`: it has none."""
    here = Path(__file__).parent
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{NEWER}{os.pathsep}{here}"}
    done = subprocess.run(  # noqa: S603  # our own script
        [PYTHON, here / "list_options.py", engine], capture_output=True, text=True, env=env, check=False
    )
    if done.returncode or MARK not in done.stdout:
        raise RuntimeError(f"{engine} could not be run: {done.stderr[-2000:]}")
    found: Mapping[str, Mapping[str, Any]] = json.loads(done.stdout.rpartition(MARK)[2])
    return found


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """New, gone and changed options, a line each; `ours` are values of `autotune.engines.options.Option`."""
    out = [f"+ {theirs[name]['flags'][0]} (default {theirs[name]['default']})" for name in theirs.keys() - ours.keys()]
    out += [f"- {ours[name].flags[0]}" for name in ours.keys() - theirs.keys()]
    for name in ours.keys() & theirs.keys():
        mine, other = ours[name], theirs[name]
        gone = sorted({*mine.flags, *mine.off} - set(other["flags"]))
        new = sorted(set(other["flags"]) - {*mine.flags, *mine.off})
        flag = other["flags"][0]
        out += [f"~ {flag}: spellings {gone} gone, {new} new"] if gone or new else []
        if mine.default != other["default"]:
            out.append(f"~ {flag}: default {mine.default!r}, now {other['default']!r}")
        if sorted(mine.choices) != other["choices"]:
            out.append(f"~ {flag}: choices {sorted(mine.choices)}, now {other['choices']}")
    return sorted(out)


def main() -> None:
    """Every engine, or those that are named."""
    for engine in sys.argv[1:] or ("vllm", "sglang"):
        ours = ENGINES[engine].choose_version(None)[0]
        found = differences(ours.options, their_options(engine))
        print(f"{engine}: {len(found)} differences from our list of {ours.version}")  # noqa: T201
        print("\n".join(found), end="\n" if found else "")  # noqa: T201


if __name__ == "__main__":
    main()
