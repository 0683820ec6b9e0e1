"""A window of traffic as it was read, and what may be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autotune.traffic.blocks import CACHE_TOKENS
from autotune.traffic.covered import Covered
from autotune.traffic.profile import WorkloadProfile, profile_of_arrays
from autotune.traffic.requests import UNKNOWN, Columns
from costmodel.simulation.prefix_cache import PromptBlocks

SHOWN_BINS_S = (3600.0, 600.0, 60.0, 10.0, 1.0)
LEAST_SHOWN_BINS, MOST_SHOWN_BINS = 6, 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficLog:
    """A window of traffic as it was read."""

    source: str
    form: str
    """`csv`, `jsonl`, `json`, `text`, `parquet` or `prometheus`."""
    fingerprint: str
    """SHA-256 of the window and of what is in it, in hexadecimal: equal traffic, equal fingerprint."""
    start_s: float
    """Of the window, Unix time (or from the log's own start, where it has no other)."""
    end_s: float
    refusal: str | None
    """Why nothing can be decided on this window; None: it can."""
    columns: Columns | None
    """The window's requests; None: only their distribution is known."""
    num_requests: int = 0
    lines: int = 0
    """Lines read, before the window was cut out."""
    problems: Mapping[str, int] = field(default_factory=dict)
    """Unusable lines, by kind (`autotune.traffic.problems.WORDS`)."""
    failed: int = 0
    """Requests that the log says were not served; they are left out."""
    assumptions: tuple[str, ...] = ()
    measured: WorkloadProfile | None = None
    """The profile, where the source holds distributions and no requests."""
    covered: Covered | None = None
    """What of the window the log covers; None: all of it."""
    all_blocks: PromptBlocks | None = None
    """The blocks of all prompts of the log, which `columns` says the places of; None: it has no hashes of them."""

    def blocks(self) -> PromptBlocks | None:
        """The blocks of each request of the window; None: they are not known, or requests are left out between them."""
        held = self.columns
        if self.all_blocks is None or held is None or held.blocks_at is None or held.requests_each != 1.0:
            return None
        return self.all_blocks.rows(held.blocks_at.astype(np.int64))

    def cache_shares(self) -> dict[int, float] | None:
        """Tokens of a prefix cache -> share of prompt tokens that it would find; None: blocks are not known."""
        blocks = self.blocks()
        if blocks is None:
            return None
        sizes = np.array(CACHE_TOKENS)
        shares = blocks.hit_frac(caches=np.ones_like(sizes), tokens=sizes.astype(np.float64))
        return dict(zip(CACHE_TOKENS, shares.tolist(), strict=True))

    def profile(self, *, since_s: float | None = None) -> WorkloadProfile:
        """The window's profile.

        Args:
            since_s: requests before are left out, as those that a cold start served; no effect on distributions.

        Raises:
            ValueError: the window was refused, or nothing is left of it.
        """
        if self.refusal is not None:
            raise ValueError(f"no profile of a refused window: {self.refusal}")
        if self.columns is None:
            if self.measured is None:
                raise ValueError("neither requests nor distributions were read")
            return self.measured
        covered = self.covered or Covered(start_s=self.start_s, end_s=self.end_s)
        if since_s is not None:
            covered = covered.since(since_s)
        held = self.columns.between(covered.start_s, covered.end_s)
        return profile_of_arrays(
            held.times_s,
            held.prompt.astype(np.float64),
            held.output.astype(np.float64),
            start_s=covered.start_s,
            end_s=covered.end_s,
            gaps_s=covered.gaps_s,
            shared_prefix_frac=_shared_frac(held),
            requests_each=held.requests_each,
            assumptions=self.assumptions,
        )

    def rate_over_time(self) -> list[dict[str, float]]:
        """Requests per second in equal parts of the window: an hour each, or less where the window is short.

        Empty where only distributions are known.
        """
        if self.columns is None or self.columns.times_s.size == 0:
            return []
        covered = self.covered or Covered(start_s=self.start_s, end_s=self.end_s)
        span = covered.end_s - covered.start_s
        length = next((b for b in SHOWN_BINS_S if span >= LEAST_SHOWN_BINS * b), max(span, 1e-9) / LEAST_SHOWN_BINS)
        length = max(length, span / MOST_SHOWN_BINS)
        starts = covered.start_s + length * np.arange(max(int(np.ceil(span / length - 1e-9)), 1))
        ends = np.minimum(starts + length, covered.end_s)
        index = np.searchsorted(starts, self.columns.times_s, side="right") - 1
        counts = np.bincount(index[index >= 0], minlength=starts.size) * self.columns.requests_each
        return [
            {"start_s": float(s), "end_s": float(e), "requests": float(n), "per_s": float(n / (e - s))}
            for s, e, n in zip(starts, ends, counts, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """How it was read, as JSON content."""
        return {
            "source": self.source,
            "form": self.form,
            "fingerprint": self.fingerprint,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "requests": self.num_requests,
            "lines": self.lines,
            "failed_requests": self.failed,
            "covered_frac": 1.0 if self.covered is None else self.covered.share(self.start_s, self.end_s),
            "problems": dict(self.problems),
            "refusal": self.refusal,
            "assumptions": list(self.assumptions),
        }


def _shared_frac(held: Columns) -> float | None:
    if held.cached is None:
        return None
    known = held.cached != UNKNOWN
    total = float(held.prompt[known].sum())
    return float(held.cached[known].sum()) / total if total > 0.0 else None
