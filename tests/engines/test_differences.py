"""What a newer wheel changes, as `make engines-diff` prints it."""

from __future__ import annotations

from autotune.engines import ENGINES
from tools.engines.diff import differences


def test_options_that_are_new_gone_and_changed() -> None:
    """A line for each; a list that agrees has none."""
    ours = ENGINES["vllm"].choose_version(None)[0].options
    theirs = {
        name: {"flags": [*o.flags, *o.off], "default": o.default, "choices": sorted(o.choices)}
        for name, o in ours.items()
    }
    assert differences(ours, theirs) == []
    theirs["brand_new"] = {"flags": ["--brand-new"], "default": 3, "choices": []}
    del theirs["headless"]
    theirs["block_size"] = theirs["block_size"] | {"default": 64}
    assert differences(ours, theirs) == [
        "+ --brand-new (default 3)",
        "- --headless",
        "~ --block-size: default None, now 64",
    ]
