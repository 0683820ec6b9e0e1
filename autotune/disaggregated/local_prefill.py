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
from costmodel.simulation.requests import Flags, found_in_blocks

LOCAL_PREFILL = "local_prefill"
"""Rule that a plan breaks whose engine's decode pool cannot prefill what the study has it prefill."""
LENGTHS = 4096
"""Lengths that stand for a uniform range."""
MOST_LOCAL = 1.0 - 1e-6
"""Share of the requests that a decode pool is taken to prefill at most: with all of them a prefill pool has no rate."""


def by_local_prefill(study: Study) -> list[Study]:
    """The study with each setting of the front and the engines that send alike with it.

    Of each engine, settings are left out that send every prompt as another one does.
    """
    found, seen = list[Study](), set[tuple[str, float]]()
    for tokens in study.axes.max_local_prefill_tokens:
        alike: dict[LocalPrefill | None, list[str]] = {}
        for engine in (name for name in engines_of(study.engine) if _takes(name, tokens)):
            split = local_prefill(study.workload, tokens, engine)
            frac = 0.0 if split is None else split.frac
            if (engine, frac) not in seen:
                seen.add((engine, frac))
                alike.setdefault(split, []).append(engine)
        found += [_narrowed(study, tokens, split, engines) for split, engines in alike.items()]
    return found


def with_local_prefill(study: Study, tokens: int, engine: str) -> Study:
    """The study of one engine with one setting of the front, whatever it searches."""
    return _narrowed(study, tokens, local_prefill(study.workload, tokens, engine), [engine])


def _narrowed(study: Study, tokens: int, split: LocalPrefill | None, engines: list[str]) -> Study:
    name = study.engine if engines == list(engines_of(study.engine)) else "+".join(engines)
    axes = replace(study.axes, max_local_prefill_tokens=(tokens,), local_prefill=split)
    return replace(study, engine=name, axes=axes)


def pool_engines(study: Study) -> tuple[str, ...]:
    """Engines of the study whose pools can be sent prompts in one of the ways that it asks for."""
    return tuple(name for name in engines_of(study.engine) if can_be_sent(study, name))


def can_be_sent(study: Study, engine: str) -> bool:
    """Whether pools of an engine can be sent prompts in one of the ways that a study asks for."""
    return any(_takes(engine, tokens) for tokens in study.axes.max_local_prefill_tokens)


def _takes(engine: str, tokens: int) -> bool:
    return tokens == 0 or ENGINES[engine].decode_pool_prefills != ""


def refused_setting(engine: str) -> Violation:
    """The rule that pools of an engine break which can be sent prompts in none of the ways that a study asks for."""
    setting = "max_local_prefill_tokens, in disaggregation and in baseline, must be 0 or have 0 among its choices"
    return Violation(rule=LOCAL_PREFILL, message=f"{prefills_no_prompts(ENGINES[engine])}: {setting}")


def local_prefill(work: Workload, tokens: int, engine: str) -> LocalPrefill | None:
    """What an engine's front sends to the decode pool that sends it prompts with at most `tokens` to compute.

    Some engines' fronts keep to prompts of which a part is cached. None: nothing.
    """
    weight, prompt, new, warm = _prompts(work)
    needs_hit = ENGINES[engine].decode_pool_prefills == "cached"
    here = (new <= tokens) & (tokens > 0) & (warm | (not needs_hit))
    frac = float(weight[here].sum())
    if frac <= 0.0:
        return None
    new = new if work.recorded is not None else prompt * (1.0 - work.prefix_cache_hit_frac)
    own_new, own_prompt = (float(np.average(x[here], weights=weight[here])) for x in (new, prompt))
    left = ~here if not here.all() else here
    isl, left_new = (float(np.average(x[left], weights=weight[left])) for x in (prompt, new))
    spread = float(np.average((prompt[left] - isl) ** 2, weights=weight[left]))
    # of the longest prompt no more is taken to be cached than of a mean one
    found = work.isl.mean * work.prefix_cache_hit_frac
    stays = work.longest_prompt - found <= tokens and (found > 0.0 or not needs_hit)
    return LocalPrefill(
        max_tokens=tokens,
        frac=min(frac, MOST_LOCAL),
        new=max(own_new, 1.0),
        cached=min(own_prompt - own_new, own_prompt - 1.0),
        cold=not warm[here].all(),
        longest_new=work.longest_prompt - found if stays else 0.0,
        longest_cached=found if stays else 0.0,
        others_isl=isl,
        others_hit_frac=1.0 - left_new / isl,
        others_cv2=spread / isl**2,
    )


def _prompts(work: Workload) -> tuple[Floats, Floats, Floats, Flags]:
    """Shares of the requests, their prompts, the tokens of those that are computed, and whether any other is.

    Those of a log, of kinds of requests, or of uniform lengths; prompts are found in the cache in whole blocks.
    """
    log = work.recorded
    if log is not None:
        prompt, cached, weight = log.prompt.astype(np.float64), log.cached, np.full(len(log), 1.0 / len(log))
        return weight, prompt, prompt - cached, cached > 0
    if work.points:
        weight, prompt = np.array([[p.weight, p.isl] for p in work.points], dtype=np.float64).T
    else:
        places = (np.arange(LENGTHS) + 0.5) / LENGTHS
        prompt = work.isl.min + (work.isl.max - work.isl.min) * places
        prompt *= work.isl.mean / prompt.mean()
        weight = np.full(LENGTHS, 1.0 / LENGTHS)
    whole = np.maximum(np.rint(prompt), 1.0).astype(np.int64)
    cached = found_in_blocks(whole, work.prefix_cache_hit_frac)
    return weight, prompt, (whole - cached).astype(np.float64), cached > 0
