"""Every family that is served: parameters against what is published and what Transformers counts, cache by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from costmodel.arch import active_params, cache_bytes, kv_bytes_per_token, load_model, read_config, total_params
from tests.arch.families import FAMILIES, TRANSFORMERS

RESAVED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data" / "resaved.json").read_text(encoding="utf-8")
)


ROUNDED = ("moonshotai/Kimi-K2-Instruct", "moonshotai/Kimi-K2.5", "inclusionAI/Ling-2.5-1T")
"""Published as "1T": totals known to no more than 2 %."""


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters(name: str) -> None:
    """Within 1 % of the published total, 2 % where it is rounded to 1T; active to 2 % or half of the last digit."""
    figures, arch = FAMILIES[name], load_model(name)
    assert total_params(arch) == pytest.approx(figures.total, rel=0.02 if name in ROUNDED else 0.01)
    off = abs(active_params(arch) - figures.active)
    assert off <= max(figures.digit, 0.02 * figures.active), f"{off / figures.active:.1%}: {figures.source}"


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_parameters_as_transformers_counts_them(name: str) -> None:
    """To 0.01 % of the model that Transformers builds of the same config."""
    assert total_params(load_model(name)) == pytest.approx(TRANSFORMERS[name], rel=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_cache(name: str) -> None:
    """Bytes that a token adds to the cache, exactly, in 16 bits."""
    assert kv_bytes_per_token(load_model(name), "bf16") == FAMILIES[name].kv


@pytest.mark.parametrize("name", RESAVED)
def test_as_transformers_saves_it(name: str) -> None:
    """The config that Transformers writes of the same model is read as the same model."""
    published, saved = load_model(name), read_config(RESAVED[name], name=name)
    assert total_params(saved) == total_params(published)
    assert active_params(saved) == active_params(published)
    assert [cache_bytes(saved, n) for n in (100, 10_000)] == [cache_bytes(published, n) for n in (100, 10_000)]
    assert [(g.name, g.per_layer) for g in saved.groups] == [(g.name, g.per_layer) for g in published.groups]
