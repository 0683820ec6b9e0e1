"""What can be wrong with a line of a log, by kind; counted, never raised."""

from __future__ import annotations

from collections.abc import Mapping

TRUNCATED = "truncated"
MALFORMED = "malformed"
NEGATIVE = "negative_tokens"
ABSURD = "absurd_tokens"
NO_TOKENS = "no_tokens"
NO_TIME = "bad_time"
CLOCK_JUMP = "clock_jump"
STRAY = "stray_time"

WORDS: Mapping[str, str] = {
    TRUNCATED: "truncated lines",
    MALFORMED: "malformed lines",
    NEGATIVE: "with a negative token count",
    ABSURD: "with an absurd token count",
    NO_TOKENS: "without prompt or output tokens",
    NO_TIME: "without a time",
    CLOCK_JUMP: "jumps of the clock back by more than a minute",
    STRAY: "at a time far from all others",
}
"""Kind -> what is counted, in words."""

MAX_TOKENS = 10_000_000
"""Longest prompt or output that is believed, tokens: the longest contexts on offer."""
CLOCK_STEP_S = 60.0
"""Servers that write to one log are no more than this apart."""


def problem_words(problems: Mapping[str, int]) -> str:
    """Counts in words, the most frequent first."""
    ordered = sorted(problems.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {WORDS[kind]}" for kind, count in ordered)


def token_problem(prompt: float, output: float) -> str | None:
    """What is wrong with a pair of token counts; None: nothing."""
    if prompt < 0 or output < 0:
        return NEGATIVE
    if prompt > MAX_TOKENS or output > MAX_TOKENS:
        return ABSURD
    return NO_TOKENS if prompt < 1 or output < 1 else None
