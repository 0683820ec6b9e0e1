"""How many of a replica's requests decode, such that all of them are accounted for (Little's law)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.plan.columns import Bools, Floats

BISECTIONS = 14
"""Halvings of the interval between no sequence and all of them; a secant through its ends follows."""
MOST_UTILISED = 0.9999


@dataclass(frozen=True, slots=True, kw_only=True)
class Residence:
    """What a request of a replica meets. Arrays of shape `(num_plans,)`; seconds."""

    before_decode_s: Floats
    """From its arrival to its first token, a queue in front of prefill not counted."""
    undisturbed_s: Floats
    """Decoding, were there no other prompts."""
    per_decoding_s: Floats
    """What prompts add to that for each sequence that decodes, since each brings a prompt."""
    service_s: Floats
    """What a prompt takes of the server that prefill is."""
    queue_weight: Floats
    """Variability of arrivals and services in front of prefill: 1 for Poisson arrivals, 0 for none."""
    most_decoding: Floats
    """Sequences that decode while prompts take all that is left of the token budget; infinite where they come first."""


def balance(running: Floats, residence: Residence) -> tuple[Floats, Floats]:
    """Sequences that decode, and seconds in the queue in front of prefill; shape `(num_plans,)`.

    Where `d` sequences decode, each for D = `undisturbed_s + per_decoding_s d`, d / D requests are served per second,
    and `running - d` others are before their first token: `d (before_decode_s + queue) = (running - d) D`. The queue is
    that of Pollaczek and Khinchine for a server of `service_s`; what is more than `most_decoding` waits, whatever its
    length.
    """
    r, budget = residence, _budget(residence)
    half_queue_s = 0.5 * r.queue_weight * r.service_s

    def excess(d: Floats) -> Floats:
        stays = r.undisturbed_s + r.per_decoding_s * d
        use = _use(d, r, stays, budget)
        return d * (r.before_decode_s + half_queue_s * use / (1.0 - use)) - (running - d) * stays

    low = np.zeros_like(running + r.before_decode_s + r.undisturbed_s)
    width = np.minimum(running, r.most_decoding) + low
    for _ in range(BISECTIONS):
        width = 0.5 * width
        low += width * (excess(low + width) <= 0.0)
    # what a halving leaves of the decoding shows in the queue many times over, where outputs are long
    below, above = np.minimum(excess(low), 0.0), np.maximum(excess(low + width), 0.0)
    decoding = low + width * below / np.minimum(below - above, -1e-300)
    stays = r.undisturbed_s + r.per_decoding_s * decoding
    waits = (running - decoding) * stays / np.maximum(decoding, 1e-12) - r.before_decode_s
    return decoding, np.maximum(waits, 0.0)


def prefill_use(decoding: Floats, residence: Residence) -> Floats:
    """Share of what prefill can do that is asked of it while so many decode, at most `MOST_UTILISED`."""
    stays = residence.undisturbed_s + residence.per_decoding_s * decoding
    return _use(decoding, residence, stays, _budget(residence))


def _budget(residence: Residence) -> Bools | None:
    """Whether prompts take what is left of a token budget, shape `(num_plans,)`; None: in all plans."""
    budget = np.isfinite(residence.most_decoding)
    return None if budget.all() else budget


def _use(decoding: Floats, residence: Residence, stays_s: Floats, budget: Bools | None) -> Floats:
    use = decoding / residence.most_decoding
    if budget is not None:
        use = np.where(budget, use, decoding / stays_s * residence.service_s)
    return np.minimum(use, MOST_UTILISED)


def prefill_queue_s(running: Floats, residence: Residence) -> Floats:
    """Seconds in the queue in front of prefill where nothing decodes: requests of one token; shape `(num_plans,)`.

    With b for `before_decode_s`, s for `service_s`, w for `queue_weight` and u for the share of the time in which
    prefill works, Little's law over the `running` requests and the queue of Pollaczek and Khinchine are

        running = u / s (b + w s u / (2 (1 - u)))

    which is quadratic in u and has one root between 0 and 1. Without variability the server may be busy all the time.
    """
    r = residence
    before = r.before_decode_s / r.service_s
    square, linear = 0.5 * r.queue_weight - before, before + running
    root = np.sqrt(np.maximum(linear**2 + 4.0 * square * running, 0.0))
    use = np.minimum(2.0 * running / (linear + root), 1.0)
    return np.maximum(running * r.service_s / use - r.before_decode_s, 0.0)
