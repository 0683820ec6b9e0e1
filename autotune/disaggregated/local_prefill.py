"""Conditional disaggregation: prompts with few tokens to compute are prefilled where they decode.

How many tokens is a setting of the front, and a choice of the search: each is searched by itself, over the study as it
is with that setting, which says what the decode pool prefills and what that leaves to the prefill pool.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autotune.engines import ENGINES, Violation, engines_of, prefills_no_prompts
from autotune.study import Study, Workload
from autotune.study.wider_search import LocalPrefill
from costmodel.plan.columns import Floats

LOCAL_PREFILL = "local_prefill"
"""Rule that a plan breaks whose engine's decode pool cannot prefill what the study has it prefill."""
LENGTHS = 4096
"""Lengths that stand for a uniform range."""
MOST_LOCAL = 1.0 - 1e-6
"""Share of the requests that a decode pool is taken to prefill at most: with all of them a prefill pool has no rate."""


def by_local_prefill(study: Study) -> list[Study]:
    """The study with each setting of the front, without those that send every prompt as another one does."""
    found: dict[float, Study] = {}
    for tokens in study.axes.max_local_prefill_tokens:
        own = with_local_prefill(study, tokens)
        found.setdefault(_local_frac(own), own)
    return list(found.values())


def with_local_prefill(study: Study, tokens: int) -> Study:
    """The study with one setting of the front, whatever it searches."""
    split = local_prefill(study.workload, tokens)
    return replace(study, axes=replace(study.axes, max_local_prefill_tokens=(tokens,), local_prefill=split))


def pool_engines(study: Study) -> tuple[str, ...]:
    """Engines of the study whose pools can be sent prompts in one of the ways that it asks for."""
    return tuple(name for name in engines_of(study.engine) if can_be_sent(study, name))


def can_be_sent(study: Study, engine: str) -> bool:
    """Whether pools of an engine can be sent prompts in one of the ways that a study asks for.

    Engines that need some of a prompt cached pass where the study is not yet narrowed to one setting: which prompts
    are sent is known only then.
    """
    return not _why_not(study, engine)


def refused_setting(study: Study, engine: str) -> Violation:
    """The rule that pools of an engine break which can be sent prompts in none of the ways that a study asks for."""
    own = max((with_local_prefill(study, t) for t in study.axes.max_local_prefill_tokens), key=_local_frac)
    return Violation(rule=LOCAL_PREFILL, message=_why_not(own, engine))


def _why_not(study: Study, engine: str) -> str:
    """Why pools of an engine cannot be sent prompts as a study asks for; empty: they can."""
    own, local = ENGINES[engine], study.axes.local_prefill
    if 0 in study.axes.max_local_prefill_tokens or own.decode_pool_prefills == "all":
        return ""
    choices = "disaggregation.max_local_prefill_tokens must have 0 among its choices"
    if not own.decode_pool_prefills:
        return f"{prefills_no_prompts(own)}: {choices}"
    if local is not None and local.cold:
        return (
            f"{own.title}'s fronts send a prompt to the decode pool only where some of it is cached there, but some "
            f"prompts with at most {local.max_tokens:,} tokens to compute have nothing cached: {choices}"
        )
    return ""


def _local_frac(study: Study) -> float:
    return 0.0 if study.axes.local_prefill is None else study.axes.local_prefill.frac


def local_prefill(work: Workload, tokens: int) -> LocalPrefill | None:
    """What a front sends to the decode pool that sends it prompts with at most `tokens` to compute; None: nothing."""
    weight, prompt, new = _prompts(work)
    here = (new <= tokens) & (tokens > 0)
    frac = float(weight[here].sum())
    if frac <= 0.0:
        return None
    own_new, own_prompt = (float(np.average(x[here], weights=weight[here])) for x in (new, prompt))
    left = ~here if not here.all() else here
    isl, left_new = (float(np.average(x[left], weights=weight[left])) for x in (prompt, new))
    spread = float(np.average((prompt[left] - isl) ** 2, weights=weight[left]))
    return LocalPrefill(
        max_tokens=tokens,
        frac=min(frac, MOST_LOCAL),
        new=max(own_new, 1.0),
        cached=min(own_prompt - own_new, own_prompt - 1.0),
        cold=bool((new[here] >= prompt[here]).any()),
        others_isl=isl,
        others_hit_frac=1.0 - left_new / isl,
        others_cv2=spread / isl**2,
    )


def _prompts(work: Workload) -> tuple[Floats, Floats, Floats]:
    """Shares of the requests, their prompts, and the tokens of those that are computed: of a log, of kinds of requests,
    or of uniform lengths.
    """
    log, hit = work.recorded, work.prefix_cache_hit_frac
    if log is not None and log.cached.any():
        prompt = log.prompt.astype(np.float64)
        return np.full(prompt.size, 1.0 / prompt.size), prompt, prompt - log.cached
    if work.points:
        weight, prompt = np.array([[p.weight, p.isl] for p in work.points], dtype=np.float64).T
    elif log is not None:
        prompt = log.prompt.astype(np.float64)
        weight = np.full(prompt.size, 1.0 / prompt.size)
    else:
        places = (np.arange(LENGTHS) + 0.5) / LENGTHS
        prompt = work.isl.min + (work.isl.max - work.isl.min) * places
        prompt *= work.isl.mean / prompt.mean()
        weight = np.full(LENGTHS, 1.0 / LENGTHS)
    return weight, prompt, prompt * (1.0 - hit)
