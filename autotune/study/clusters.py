"""The clusters that a study may be answered for: its own, and those that `search.gpus` and `search.gpu` open."""

from __future__ import annotations

from dataclasses import replace

from autotune.metrics import GOODPUT, MAXIMIZE, OF_CLUSTERS, PER_GPU
from autotune.study.question import Study
from autotune.study.sections import Objective
from costmodel.errors import InputError
from costmodel.hardware import Cluster


def cluster_choices(study: Study) -> tuple[Cluster, ...]:
    """Every cluster to look at: the study's own type first, each with its GPU counts, ascending."""
    counts = study.axes.gpu_counts or (study.cluster.gpus,)
    return tuple(_sized(cluster, gpus) for cluster in (study.cluster, *study.axes.gpu_types) for gpus in counts)


def cluster_of(study: Study, gpu: str | None, gpus: int) -> Cluster:
    """The cluster of `gpus` GPUs of a type; None is the study's own.

    Raises:
        InputError: the study opens no such type or no such count.
    """
    types = {c.gpu.name: c for c in (study.cluster, *study.axes.gpu_types)}
    name = study.cluster.gpu.name if gpu is None else gpu
    counts = {study.cluster.gpus, *study.axes.gpu_counts}
    if name not in types:
        raise InputError.single("plan", f"names GPUs that the study does not open: {name!r}; it has {', '.join(types)}")
    if gpus not in counts:
        shown = ", ".join(map(str, sorted(counts)))
        raise InputError.single("plan", f"uses {gpus} GPUs, and the study is about {shown} (search.gpus opens more)")
    return study.cluster if name == study.cluster.gpu.name and gpus == study.cluster.gpus else _sized(types[name], gpus)


def on_cluster(study: Study, cluster: Cluster) -> Study:
    """The study about one of its clusters alone."""
    return replace(study, cluster=cluster, axes=replace(study.axes, gpu_counts=(), gpu_types=()))


def opens_clusters(study: Study) -> bool:
    """Whether the study is about more than one cluster."""
    return len(cluster_choices(study)) > 1


def in_place(study: Study, *, pools: bool = False) -> Study:
    """`on_one_cluster` of the study's own, about throughput per GPU (`on_throughput`) where it is about goodput.

    For what looks at means alone.
    """
    return on_one_cluster(on_throughput(study), pools=pools)


def on_one_cluster(study: Study, *, pools: bool = False, cluster: Cluster | None = None) -> Study:
    """The study about one cluster; says so where that leaves some plans out.

    For what looks into one plan, or changes a running service in place: the plan runs there, and so does any that it
    is held against or replaced with.

    Args:
        study: from `load_study`.
        pools: whether disaggregated plans stay in, where the study opens them; else one kind of replica alone.
        cluster: one of `cluster_choices`; None: the study's own, the baseline's.
    """
    one = study.cluster if cluster is None else cluster
    said = []
    if opens_clusters(study):
        where = "the baseline's cluster" if one == study.cluster else f"{one.gpus} x {one.gpu.name}"
        said.append(f"search.gpus and search.gpu are left out here: plans on {where} alone")
    disaggregated = study.axes.disaggregated if pools else "off"
    if study.axes.disaggregated != disaggregated:
        said.append("search.disaggregated is left out here: plans of one kind of replica alone")
    own = on_cluster(study, one)
    if study.objective.metric in OF_CLUSTERS:
        said.append(f"{study.objective.metric} is throughput per GPU here: all plans have the same GPUs at one price")
        own = replace(own, objective=Objective(metric=PER_GPU, direction=MAXIMIZE))
    return replace(
        own,
        axes=replace(own.axes, disaggregated=disaggregated),
        assumptions=tuple(dict.fromkeys((*study.assumptions, *said))),
    )


def on_throughput(study: Study) -> Study:
    """The study about throughput per GPU where it is about goodput, which is simulated; says so."""
    if study.objective.metric != GOODPUT:
        return study
    said = f"{GOODPUT} is throughput per GPU here, and limits that name no percentile are on means"
    objective = Objective(metric=PER_GPU, direction=MAXIMIZE)
    return replace(study, objective=objective, assumptions=tuple(dict.fromkeys((*study.assumptions, said))))


def _sized(cluster: Cluster, gpus: int) -> Cluster:
    """As many GPUs of the cluster's type; hosts as large as its own, or as the type's where it had but one."""
    if gpus == cluster.gpus:
        return cluster
    host = cluster.gpus_per_node if cluster.gpus_per_node < cluster.gpus else cluster.gpu.gpus_per_node
    return replace(cluster, gpus=gpus, gpus_per_node=min(host, gpus))
