"""What of a question the user's own calibration covers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autotune.engines import ENGINES
from costmodel.arch import Arch, stored_in
from costmodel.calibration.measured_cells import own_key
from costmodel.calibration.profile import Profile
from costmodel.hardware import Gpu

UNUSED = "calibration profile: none of its cells"
"""How the sentence begins that says of a profile that it changes nothing."""


def cells_covered(
    profile: Profile, engines: Iterable[str], gpus: Sequence[Gpu], arch: Arch, weight_dtypes: Sequence[str | None]
) -> tuple[str, ...]:
    """What of the cells that a study searches the profile leaves as the calibration has them; empty: nothing."""
    archs = [stored_in(arch, dtype) for dtype in weight_dtypes]
    searched = list(dict.fromkeys(own_key(e, gpu.name, stored) for e in engines for gpu in gpus for stored in archs))
    left = [name for name in searched if name not in profile.cells]
    if not left:
        return ()
    covered = [name for name in searched if name in profile.cells]
    if covered:
        said = f"predictions for {_listed(left)} are as without it; it covers {_listed(covered)}"
        return (f"calibration profile: {said}",)
    shape = searched[0].split("|")[2]
    held = _listed(sorted(profile.cells), shape)
    return (f"{UNUSED} ({held}) is searched here ({_listed(searched)}): predictions are as without it",)


def _listed(names: Iterable[str], shape: str | None = None) -> str:
    """`vLLM on h100_sxm in fp8` of keys of cells; of a model of another `shape` it is said that it is another."""
    parts = [name.split("|") for name in names]
    return "; ".join(
        f"{ENGINES[engine].title if engine in ENGINES else engine} on {gpu} in {precision}"
        + ("" if shape in (None, model) else " of another model")
        for engine, gpu, model, precision in (p for p in parts if len(p) == 4)
    )
