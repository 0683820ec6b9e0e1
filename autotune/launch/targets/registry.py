"""What can be written: the targets of `autotune export`. A target turns a `LaunchPlan` into files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from autotune.files import OutFile
from autotune.launch.document import plan_document
from autotune.launch.files import MARK
from autotune.launch.plan import LaunchPlan, Service
from autotune.launch.targets import guides, pods
from autotune.launch.targets.bench_script import NAME as BENCH_SCRIPT
from autotune.launch.targets.bench_script import bench_script
from autotune.launch.targets.compose import compose_files
from autotune.launch.targets.dynamo import VLLM as DYNAMO_VLLM
from autotune.launch.targets.dynamo import dynamo_files
from autotune.launch.targets.dynamo import image_of as dynamo_image
from autotune.launch.targets.kubernetes import kubernetes_files
from autotune.launch.targets.readme import readme
from autotune.launch.targets.scripts import script_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One kind of launch files."""

    name: str
    engine: str | None
    """The engine it launches; None: the plan's own."""
    files: Callable[[LaunchPlan], Mapping[str, OutFile]]
    """Everything but README and plan.json. Raises `InputError` for a plan that it cannot express."""
    guide: Callable[[LaunchPlan], guides.Guide]
    """The README's words on starting, checking, measuring and rolling."""
    images: Callable[[Service], tuple[str, ...]] = lambda _: ()
    """What was assumed of the container image."""
    version: str | None = None
    """Of the engine where nobody says one; None: the newest whose options are known."""


def _scripts(plan: LaunchPlan) -> dict[str, OutFile]:
    return script_files(plan) | {BENCH_SCRIPT: OutFile(text=bench_script(plan), executable=True)}


def _image(service: Service) -> tuple[str, ...]:
    return pods.image_of(service)[1]


def _dynamo_image(service: Service) -> tuple[str, ...]:
    if service.image is not None:
        return ()
    return (f"image not given: {dynamo_image(service)}, which has vLLM {DYNAMO_VLLM}",)


TARGETS: dict[str, Target] = {
    **{
        name: Target(name=name, engine=name, files=_scripts, guide=guides.script_guide)
        for name in ("vllm", "sglang", "trtllm")
    },
    "compose": Target(name="compose", engine=None, files=compose_files, guide=guides.compose_guide, images=_image),
    "k8s": Target(name="k8s", engine=None, files=kubernetes_files, guide=guides.kubernetes_guide, images=_image),
    "dynamo": Target(
        name="dynamo",
        engine="vllm",
        files=dynamo_files,
        guide=guides.dynamo_guide,
        images=_dynamo_image,
        version=DYNAMO_VLLM,
    ),
}


def target_files(target: Target, plan: LaunchPlan, *, current: Service | None) -> dict[str, OutFile]:
    """All files of an export."""
    files = dict(target.files(plan))
    plan = replace(plan, assumptions=(*plan.assumptions, *target.images(plan.service)))
    files["README.md"] = OutFile(text=readme(plan, current=current, guide=target.guide(plan)))
    document = plan_document(plan, target=target.name)
    files[MARK] = OutFile(text=json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return files
