"""Choose how to spread an LLM over a GPU cluster for serving.

`load_study` reads a study, `tune` answers it, `evaluate` reports on one plan, `compare` puts two side by side, and
`plan_graph` draws one as a graph. All return typed values; the command line calls these and shows them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune.comparison import compare
    from autotune.evaluation import evaluate
    from autotune.graph import plan_graph
    from autotune.traffic.load import load_study
    from autotune.tuning import tune

_HOMES = {
    "compare": "autotune.comparison",
    "evaluate": "autotune.evaluation",
    "load_study": "autotune.traffic.load",
    "plan_graph": "autotune.graph",
    "tune": "autotune.tuning",
}

__all__ = ["compare", "evaluate", "load_study", "plan_graph", "tune"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that `import autotune` and `autotune --help` are immediate."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
