"""What the files of a front say of prompts that it sends straight to the decode pool (conditional disaggregation)."""

from __future__ import annotations

import re
from collections.abc import Iterable

USUAL_THRESHOLD = 2048
"""Of Dynamo's router where nothing else is said."""
_SETTINGS = (
    (re.compile(r"\bmax_local_prefill_length\W{1,4}(\d{1,9})\b"), 0),
    (re.compile(r"\bnonCachedTokens\W{1,4}(\d{1,9})\b"), -1),
)
_ROUTER = re.compile(r"--router-conditional-disagg\b|\bDYN_ROUTER_CONDITIONAL_DISAGG")
_OFF = re.compile(
    r"--no-router-conditional-disagg\b|"
    r"\bDYN_ROUTER_CONDITIONAL_DISAGG\b\W{1,20}(?:value\W{1,4})?(?:0|false|no|off)\b",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*$", re.MULTILINE)
_THRESHOLD = re.compile(r"eff[_-]isl[_-]threshold\W{1,20}(?:value\W{1,4})?(\d{1,9})\b", re.IGNORECASE)


def setting_of_front(texts: Iterable[str]) -> int | None:
    """The most tokens to compute of prompts that a front sends to the decode pool; None: its files say nothing of it.

    Dynamo's and llm-d's thresholds are the first number of tokens that goes to the prefill pool.
    """
    for text in (_COMMENT.sub("", text) for text in texts):
        for pattern, less in _SETTINGS:
            if found := pattern.search(text):
                return max(int(found[1]) + less, 0)
        if _ROUTER.search(text) and not _OFF.search(text):
            found = _THRESHOLD.search(text)
            return max((USUAL_THRESHOLD if found is None else int(found[1])) - 1, 0)
    return None
