"""Plan strings: what people write for a layout, and the one full string that means just one layout.

Short strings (`EP16/PP2/TP4/DP4`, `tp8`, `TP4xPP2xDP4/EP`) leave choices open. They are resolved against
the GPU count and the engine's rules; what was taken for granted and what else was possible is returned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from autotune.engines import ENGINES, Violation, engines_of, split_layers, split_name
from autotune.space.enumerate import Candidate, divisors, violations
from costmodel.arch import Arch
from costmodel.errors import InputError, Problem
from costmodel.plan.layout import Layout

_NAMES = {
    "r": "replicas", "replicas": "replicas", "replica": "replicas",
    "pp": "pp",
    "tp": "tp",
    "atp": "attn_tp", "attntp": "attn_tp",
    "dp": "dp",
    "adp": "attn_dp", "attndp": "attn_dp",
    "ep": "ep", "moeep": "ep",
    "mtp": "moe_tp", "moetp": "moe_tp", "etp": "moe_tp",
    "cp": "attn_cp", "pcp": "attn_cp", "attncp": "attn_cp",
    "dcp": "dcp",
    "re": "redundant_experts", "redundantexperts": "redundant_experts",
}  # fmt: skip
_TOKEN = re.compile(r"^([a-z]+)[=:]?(\d{1,7})$")
_SPLIT = re.compile(r"^split[=:]?(\d+(?:[-.]\d+)*)$")
MAX_LENGTH = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSpec:
    """What a plan string says; None where it says nothing."""

    text: str
    engine: str | None = None
    gpu: str | None = None
    """GPU type after an `@` at the end; None: the cluster's own."""
    replicas: int | None = None
    pp: int | None = None
    tp: int | None = None
    attn_tp: int | None = None
    dp: int | None = None
    attn_dp: int | None = None
    ep: int | None = None
    expert_parallel: bool = False
    """`EP` without a number, as of engines where it is a flag."""
    moe_tp: int | None = None
    attn_cp: int | None = None
    dcp: int | None = None
    redundant_experts: int | None = None
    two_batch_overlap: bool = False
    stage_layers: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """A plan string's meaning."""

    candidate: Candidate
    assumed: tuple[str, ...]
    """What the string left open and how it was filled in."""
    alternatives: tuple[Candidate, ...]
    """What else it could have meant, valid for the same engine."""
    violations: tuple[Violation, ...]
    """Rules of the engine that the plan breaks; empty for a valid plan."""


def parse_plan(text: str) -> PlanSpec:
    """Read a plan string.

    Raises:
        InputError: every token that cannot be read, and every axis named twice.
    """
    if len(text) > MAX_LENGTH:
        raise InputError.single("plan", f"must be at most {MAX_LENGTH} characters, got {len(text)}")
    values: dict[str, object] = {}
    problems: list[Problem] = []
    body, _, gpu = text.strip().lower().partition("@")
    if gpu:
        values["gpu"] = gpu
    engine, body = split_name(body)
    if engine is not None:
        values["engine"] = engine
    cleaned = re.sub(r"(?<=\d)x(?=[a-z])", " ", body.strip())
    cleaned = re.sub(r"\(([^)]*)\)", r" \1 ", cleaned)
    cleaned = re.sub(r"(?<=[a-z])_(?=[a-z])", "", cleaned)
    cleaned = re.sub(r"(?<=\d)\.(?=\d)", "-", cleaned)
    cleaned = re.sub(r"(?<=split)([\d,]+)", lambda m: m[1].replace(",", "-"), cleaned)
    for token in (t for t in re.split(r"[\s/,;+|&x]+", cleaned.replace("expert", "ep_")) if t):
        _token(token, values, problems, text)
    if "@" in text and not re.fullmatch(r"[a-z0-9][\w.-]{0,60}", gpu):
        problems.append(Problem(path="plan", message=f"must name a GPU type after @, as in TP8@h100_sxm, got {text!r}"))
    if not set(values) - {"gpu"} and not problems:
        problems.append(Problem(path="plan", message=f"must name at least one axis, got {text!r}"))
    if problems:
        raise InputError(problems)
    return PlanSpec(text=text, **values)  # type: ignore[arg-type]  # keys are the fields' names


def _token(token: str, values: dict[str, object], problems: list[Problem], text: str) -> None:
    if token == "ep":  # noqa: S105
        values["expert_parallel"] = True
        return
    if token == "tbo":  # noqa: S105
        values["two_batch_overlap"] = True
        return
    split = _SPLIT.match(token)
    if split:
        values["stage_layers"] = tuple(int(x) for x in re.split(r"[-.]", split[1]))
        return
    match = _TOKEN.match(token)
    name = _NAMES.get(match[1]) if match else None
    if match is None or name is None:
        problems.append(
            Problem(path="plan", message=f"cannot read {token!r} in {text!r}; write axes as in EP16/PP2/TP4/DP4")
        )
        return
    if name in values:
        problems.append(Problem(path="plan", message=f"names {match[1].upper()} twice in {text!r}"))
    if int(match[2]) < 1 and name != "redundant_experts":
        problems.append(Problem(path="plan", message=f"{match[1].upper()} must be at least 1, got {match[2]}"))
    values[name] = int(match[2])


def format_plan(layout: Layout, engine: str | None = None, gpu: str | None = None) -> str:
    """The full string of a layout, which `parse_plan` and `resolve` map back to just that layout.

    `gpu` is named at the end, where it is not the cluster's own type.
    """
    parts = [f"R{layout.replicas}", f"PP{layout.pp}", f"ATP{layout.attn_tp}", f"ADP{layout.attn_dp}"]
    parts += [f"MTP{layout.moe_tp}", f"EP{layout.moe_ep}"]
    parts += [f"CP{layout.attn_cp}"] if layout.attn_cp > 1 else []
    parts += [f"DCP{layout.dcp}"] if layout.dcp > 1 else []
    parts += [f"RE{layout.redundant_experts}"] if layout.redundant_experts else []
    parts += ["TBO"] if layout.two_batch_overlap else []
    if engine is None or split_layers(engine, sum(layout.stage_layers), layout.pp) != layout.stage_layers:
        parts.append("SPLIT" + "-".join(map(str, layout.stage_layers)))
    text = "/".join(parts) + ("" if gpu is None else f"@{gpu}")
    return text if engine is None else f"{engine}:{text}"


def short_plan(layout: Layout, *, dense: bool = False) -> str:
    """What fits a table: `R4 PP2 TP4 DP4 EP16`, axes of 1 left out."""
    parts = [("R", layout.replicas), ("PP", layout.pp), ("TP", layout.attn_tp), ("DP", layout.attn_dp)]
    if not dense:
        parts += [("ETP", layout.moe_tp), ("EP", layout.moe_ep)]
    parts += [("CP", layout.attn_cp), ("DCP", layout.dcp), ("RE", layout.redundant_experts)]
    shown = [f"{name}{value}" for name, value in parts if value > 1] + ["TBO"] * layout.two_batch_overlap
    return " ".join(shown) or "TP1"


def resolve(
    spec: PlanSpec, *, arch: Arch, gpus: int, engine: str, version: str | None = None, drafts: bool = False
) -> Resolution:
    """Find what a plan string means on `gpus` GPUs of `engine` ("any": the first engine that accepts it).

    Readings are preferred in this order: valid for the engine; `TP` as attention TP and `DP` as attention-DP;
    whole experts (moe_tp 1); the most of the string's numbers taken literally; the fewest replicas left over.
    `drafts`: the plan decodes with drafts.

    Raises:
        InputError: no reading uses exactly `gpus` GPUs.
    """
    found: list[tuple[tuple[object, ...], Candidate, tuple[str, ...], tuple[Violation, ...]]] = []
    engines = (spec.engine,) if spec.engine else engines_of(engine)
    for order, name in enumerate(engines):
        for rank, (layout, assumed) in enumerate(_readings(spec, arch, gpus, name)):
            broken = violations(arch, name, layout, version, drafts=drafts)
            key = (bool(broken), order, rank)
            found.append((key, Candidate(engine=name, layout=layout, gpu=spec.gpu), assumed, broken))
    if not found:
        raise InputError.single("plan", _no_reading(spec, arch, gpus))
    found.sort(key=lambda f: f[0])
    _, candidate, assumed, broken = found[0]
    others = tuple(c for k, c, _, b in found[1:] if not b and c != candidate)
    if spec.engine is None and len(engines) > 1:
        assumed = (*assumed, f"engine not said: {candidate.engine}")
    return Resolution(
        candidate=candidate, assumed=assumed, alternatives=tuple(dict.fromkeys(others)), violations=broken
    )


def _no_reading(spec: PlanSpec, arch: Arch, gpus: int) -> str:
    if (spec.pp or 1) > (layers := arch.num_hidden_layers):
        return f"{spec.text!r} has {spec.pp} pipeline stages for {layers} layers: each stage must have one at least"
    said = {
        f.name: getattr(spec, f.name) for f in fields(spec) if f.name not in ("text", "engine", "gpu", "stage_layers")
    }
    values = ", ".join(f"{k}={v}" for k, v in said.items() if v not in (None, False))
    width = (spec.tp or spec.attn_tp or 1) * (spec.dp or spec.attn_dp or 1)
    used = (spec.replicas or 1) * (spec.pp or 1) * max(width, spec.ep or 1)
    if not arch.is_moe and _spreads_experts(spec):
        return f"{spec.text!r} spreads experts, of which a dense model has none: leave EP and ETP out"
    kind = "mixture-of-experts" if arch.is_moe else "dense"
    return (
        f"{spec.text!r} ({values}) has no reading that uses exactly {gpus} GPUs for a {kind} model; it names "
        f"{used} GPUs or a multiple: replicas x pp x W must be {gpus}, with W = attn_tp x attn_dp = moe_tp x moe_ep"
    )


def _spreads_experts(spec: PlanSpec) -> bool:
    return spec.expert_parallel or max(spec.ep or 1, spec.moe_tp or 1) > 1


def _readings(spec: PlanSpec, arch: Arch, gpus: int, engine: str) -> list[tuple[Layout, tuple[str, ...]]]:
    """Layouts of exactly `gpus` GPUs that agree with all that the string says, best reading first."""
    pp = spec.pp or (len(spec.stage_layers) if spec.stage_layers else 1)
    if pp > arch.num_hidden_layers or gpus % pp:
        return []
    stages = spec.stage_layers or split_layers(engine, arch.num_hidden_layers, pp)
    if len(stages) != pp or sum(stages) != arch.num_hidden_layers or min(stages) < 1:
        raise InputError.single(
            "plan",
            f"SPLIT must give {pp} stages that sum to {arch.num_hidden_layers} layers, got {list(stages)}",
        )
    fixed = {"pp": pp, "stage_layers": stages, "dcp": spec.dcp or 1, "redundant_experts": spec.redundant_experts or 0}
    fixed["two_batch_overlap"] = int(spec.two_batch_overlap)
    cp = spec.attn_cp or 1
    scored = []
    for width in (w for w in divisors(gpus // pp) if w % cp == 0):
        experts = [(width // ep, ep) for ep in divisors(width)] if arch.is_moe else [(1, 1)]
        for dp in divisors(width // cp):
            for moe_tp, moe_ep in experts:
                layout = Layout(
                    replicas=gpus // pp // width,
                    attn_tp=width // cp // dp,
                    attn_dp=dp,
                    attn_cp=cp,
                    moe_tp=moe_tp,
                    moe_ep=moe_ep,
                    **fixed,  # type: ignore[arg-type]  # a mapping of mixed values
                )
                if _agrees(spec, layout, engine, is_moe=arch.is_moe):
                    scored.append((_preference(spec, layout), layout))
    scored.sort(key=lambda item: item[0])
    return [(layout, _assumed(spec, layout, arch)) for _, layout in scored]


def _agrees(spec: PlanSpec, layout: Layout, engine: str, *, is_moe: bool) -> bool:
    """Whether a layout is a reading of what the string says that takes nothing for granted without need."""
    exact = ("replicas", "attn_tp", "attn_dp", "moe_tp")
    if any(getattr(spec, n) not in (None, getattr(layout, n)) for n in exact):
        return False
    if not is_moe and _spreads_experts(spec):
        return False
    if spec.ep not in (None, layout.moe_ep) or (spec.expert_parallel and layout.moe_tp != 1):
        return False
    if is_moe and spec.ep is None and spec.moe_tp is None and not spec.expert_parallel and layout.moe_ep != 1:
        return False
    return _tp_agrees(spec, layout, engine) and _dp_agrees(spec, layout)


def _tp_agrees(spec: PlanSpec, layout: Layout, engine: str) -> bool:
    """`TP`: attention TP, or a stage's width where the engine's own option is that. Unsaid: 1, or all of it for EP."""
    if spec.attn_tp is not None:
        return True
    if spec.tp is not None:
        may_be_wide = ENGINES[engine].tp_may_be_stage_width and spec.dp is not None
        wide = may_be_wide and layout.width == spec.tp
        return layout.attn_tp == spec.tp or wide
    whole = spec.ep is not None and spec.dp is None and spec.attn_dp is None and layout.attn_dp == 1
    return layout.attn_tp == 1 or whole


def _dp_agrees(spec: PlanSpec, layout: Layout) -> bool:
    """`DP`: attention-DP, replicas, or both together; with `EP` a number, also the copies of the expert groups."""
    if spec.attn_dp is not None:
        return True
    inferred = layout.attn_dp == 1 or (spec.ep is not None and layout.moe_tp == 1)
    if spec.dp is None:
        return inferred
    if layout.attn_dp == spec.dp or layout.attn_dp * layout.replicas == spec.dp:
        return True
    copies = spec.ep is not None and layout.replicas * layout.moe_tp == spec.dp
    return copies or (layout.replicas == spec.dp and inferred)


def _preference(spec: PlanSpec, layout: Layout) -> tuple[object, ...]:
    literal_tp = spec.tp is None or layout.attn_tp == spec.tp
    literal_dp = spec.dp is None or layout.attn_dp == spec.dp
    return (
        not literal_tp,
        layout.moe_tp != 1 and spec.moe_tp is None and bool(spec.ep),
        not literal_dp,
        layout.replicas,
        layout.attn_dp,
    )


def _assumed(spec: PlanSpec, layout: Layout, arch: Arch) -> tuple[str, ...]:
    out = []
    if spec.replicas is None and layout.replicas > 1:
        out.append(f"replicas not said: {layout.replicas}, which uses all GPUs")
    if spec.tp is not None and arch.is_moe:
        meaning = "attention TP" if layout.attn_tp == spec.tp else "the width of a stage"
        out.append(f"TP{spec.tp} read as {meaning}: attn_tp {layout.attn_tp}")
    if spec.dp is not None:
        if not arch.is_moe:
            out.append(f"DP{spec.dp} read as replicas: a dense model's data parallelism is independent servers")
        elif spec.attn_dp is None:
            same = layout.attn_dp == spec.dp
            meaning = (
                f"attention-DP {layout.attn_dp}"
                if same
                else f"data parallelism: attention-DP {layout.attn_dp} x replicas {layout.replicas}"
            )
            out.append(f"DP{spec.dp} read as {meaning}")
    if arch.is_moe and spec.moe_tp is None:
        out.append(f"experts not said in full: moe_tp {layout.moe_tp} x moe_ep {layout.moe_ep}")
    if spec.stage_layers is None and layout.pp > 1:
        out.append(f"layers per stage not said: the engine's own split {_stages(layout.stage_layers)}")
    return tuple(out)


def _stages(layers: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, layers[:8]))
    return shown if len(layers) <= 8 else f"{shown}, … ({len(layers)} stages)"
