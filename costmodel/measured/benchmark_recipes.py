"""Settings of a benchmark's servers, for runs whose file does not record them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files
from typing import Any

_FILE = files("costmodel.measured") / "inferencemax.toml"
AS_CHECKPOINT = "checkpoint"
"""A cache dtype left to the checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What a server was started with; None: the recipe does not say."""

    max_num_batched_tokens: float | None = None
    kv_dtype: str | None = None
    """`checkpoint`: left to the checkpoint."""
    poll_steps: float | None = None
    """Steps between the scheduler's looks at new requests."""
    hold_steps: float | None = None
    """Steps for which a first waiting prompt waits for others."""

    def filled_from(self, other: ServerSettings) -> ServerSettings:
        """These settings, and the other's where these say nothing."""
        names = (f.name for f in fields(self))
        return ServerSettings(**{n: getattr(other, n) if getattr(self, n) is None else getattr(self, n) for n in names})


@lru_cache(maxsize=1)
def _recipe() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def recipe_source() -> str:
    """Where the settings are from."""
    return str(_recipe()["source"])


def recipe_settings(  # noqa: PLR0913  # one for each column of a run
    *, engine: str, model: str, gpu: str, precision: str, isl: float, osl: float, gpus: int, concurrency: float
) -> ServerSettings:
    """What InferenceMAX's launch scripts set for such a run.

    Args:
        engine: its name (`EngineTraits.name`).
        model: name as the run has it.
        gpu: its type's name; a script sets nothing on another type.
        precision: as its scripts are named, `bf16`, `fp8`, `fp4` or `int4`; a script sets nothing for another one.
        isl: nominal prompt tokens.
        osl: nominal output tokens.
        gpus: of the server.
        concurrency: requests in flight.
    """
    run = {"engine": engine, "isl": isl, "osl": osl}
    name = model.lower()
    found: dict[str, Any] = {}
    for server in _recipe()["server"]:
        fits = (
            all(server.get(key, value) == value for key, value in run.items())
            and f"{precision} {gpu}" in server["scripts"]
            and any(part in name for part in server["models"])
            and gpus < server.get("gpus_below", gpus + 1)
            and server.get("concurrency_from", 0) <= concurrency < server.get("concurrency_below", concurrency + 1)
        )
        if fits:
            if "max_num_batched_tokens" in server and "max_num_batched_tokens" not in found:
                terms = {"isl": isl, "osl": osl, "concurrency": concurrency}
                tokens = sum(terms.get(term) or float(term) for term in server["max_num_batched_tokens"].split(" + "))
                found["max_num_batched_tokens"] = max(tokens, server.get("least_batched_tokens", 0.0))
            for key in ("kv_dtype", "poll_steps", "hold_steps"):
                if key in server:
                    found.setdefault(key, server[key])
    return ServerSettings(**found)
