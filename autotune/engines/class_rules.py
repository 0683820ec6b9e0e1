"""The rule that an engine has a class for a model at all, whatever the layout."""

from __future__ import annotations

import numpy as np

from autotune.engines.layout_rules import Rule
from autotune.engines.model_classes import lacks_class


def model_class(engine: str) -> Rule:
    """The rule for an engine of which it is known what it serves, or what versions of it do not."""
    return Rule(
        name="model_class",
        text="this version of the engine must have a class for models of this type",
        fields=("model_type",),
        broken=lambda arch, c: np.full(c.pp.shape, lacks_class(engine, arch, c.version)),
    )
