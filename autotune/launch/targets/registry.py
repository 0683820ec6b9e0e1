"""What can be written: the targets of `autotune export`. A target turns a `LaunchPlan` into files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autotune.engines import ENGINES
from autotune.engines.service import Service
from autotune.files import OutFile
from autotune.launch.document import plan_document
from autotune.launch.files import MARK
from autotune.launch.plan import LaunchPlan
from autotune.launch.targets import compose, container, dynamo, kubernetes, scripts
from autotune.launch.targets.readme import readme
from costmodel.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One kind of launch files."""

    name: str
    engines: tuple[str, ...] = ()
    """Those that it launches; empty: any."""
    files: Callable[[LaunchPlan], Mapping[str, OutFile]]
    """Everything but README and plan.json. Raises `InputError` for a plan that it cannot express."""
    template: str
    """Of the README."""
    words: Callable[[LaunchPlan], Mapping[str, Any]]
    """What the template asks for beside the plan."""
    images: Callable[[Service], tuple[str, ...]] = lambda _: ()
    """What was assumed of the container image."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of each engine where nobody says one; of others it is the newest whose options are known."""

    pools_alone: bool = False
    """Whether it is for disaggregated plans and no others."""
    names_objects: bool = False
    """Whether it writes objects of a cluster, which have names."""

    @property
    def engine(self) -> str | None:
        """The one that it launches; None: the plan's own."""
        return self.engines[0] if len(self.engines) == 1 else None

    def takes(self, engine: str) -> bool:
        """Whether it launches an engine."""
        return not self.engines or engine in self.engines


def targets() -> dict[str, Target]:
    """Every target by name: scripts of each engine, and the systems that start containers of any."""
    own = [
        Target(name=name, engines=(name,), files=scripts.script_files, template="scripts", words=scripts.words)
        for name in ENGINES
    ]
    one = Target(name="compose", files=compose.compose_files, template="compose", words=compose.words, images=_image)
    cluster = Target(
        name="k8s",
        files=kubernetes.kubernetes_files,
        template="kubernetes",
        words=kubernetes.words,
        images=_image,
        names_objects=True,
    )
    versions = {name: engine.dynamo.version for name, engine in ENGINES.items() if engine.dynamo is not None}
    graph = Target(
        name="dynamo",
        engines=tuple(versions),
        files=dynamo.dynamo_files,
        template="dynamo",
        words=dynamo.words,
        images=dynamo.image_assumptions,
        versions=versions,
        names_objects=True,
    )
    llm_d = [replace(cluster, name=n, files=_pools_alone, pools_alone=True) for n in ("llm-d", "disaggregatedset")]
    return {target.name: target for target in (*own, one, cluster, graph, *llm_d)}


FILES_OF_SCRIPTS = {
    "slurm": "slurm.sh",
    "systemd": "autotune@.service",
    "nginx": "nginx.conf.template",
    "envoy": "envoy.yaml.template",
    "ssh": "start-all.sh",
}
"""Systems that are no target of their own, since scripts bring along what they take."""


def _pools_alone(plan: LaunchPlan) -> dict[str, OutFile]:
    raise InputError.single(
        "--plan", f"llm_d_pools: llm-d's guide is for pools that prefill and decode, got {plan.service.plan}: take k8s"
    )


def find_target(name: str) -> Target:
    """A target by name. Raises `InputError` with those there are."""
    known = targets()
    if name not in known:
        file = FILES_OF_SCRIPTS.get(name)
        also = "" if file is None else f"; {file} is one of the files of {', '.join(ENGINES)}"
        raise InputError.single("--target", f"must be one of {', '.join(known)}, got {name[:100]!r}{also}")
    return known[name]


def target_files(target: Target, plan: LaunchPlan, *, current: Service | None) -> dict[str, OutFile]:
    """All files of an export."""
    files = dict(target.files(plan))
    plan = replace(plan, assumptions=(*plan.assumptions, *target.images(plan.service)))
    text = readme(plan, current=current, template=target.template, words=target.words(plan))
    files["README.md"] = OutFile(text=text)
    document = plan_document(plan, target=target.name)
    files[MARK] = OutFile(text=json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return files


def _image(service: Service) -> tuple[str, ...]:
    return container.image_of(service)[1]
