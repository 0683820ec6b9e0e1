"""What can be written: the targets of `autotune export`. A target turns a `LaunchPlan` into files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autotune.launch.document import plan_document
from autotune.launch.files import MARK, OutFile
from autotune.launch.plan import LaunchPlan, Service
from autotune.launch.readme import readme
from autotune.launch.scripts import script_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One kind of launch files."""

    name: str
    engine: str | None
    """The engine it launches; None: the plan's own."""
    files: Callable[[LaunchPlan], Mapping[str, OutFile]]
    """Everything but README and plan.json. Raises `InputError` for a plan that it cannot express."""
    how: Callable[[LaunchPlan], tuple[str, ...]] | None = None
    """Lines of the README that say how to start it; None: as for the scripts."""


TARGETS: dict[str, Target] = {
    name: Target(name=name, engine=name, files=script_files) for name in ("vllm", "sglang", "trtllm")
}


def target_files(target: Target, plan: LaunchPlan, *, current: Service | None) -> dict[str, OutFile]:
    """All files of an export."""
    files = dict(target.files(plan))
    how = None if target.how is None else target.how(plan)
    files["README.md"] = OutFile(text=readme(plan, current=current, how=how))
    document = plan_document(plan, target=target.name)
    files[MARK] = OutFile(text=json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return files
