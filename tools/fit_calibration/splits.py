"""What is left out of a fit to judge it: folds of runs, by what a user's own case would lack."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from costmodel.arch.attention import GroupedQuery
from costmodel.calibration.measured_cells import UNRECORDED, version_order
from costmodel.dtypes import storage
from costmodel.measured.runs import Run
from tools.fit_calibration.residual import Place, place_of

Mask = NDArray[np.bool_]
T = TypeVar("T")
DEPLOYMENT_FOLDS = 10
SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Runs that are predicted, and those that are fitted on to do so. Masks have shape `(num_runs,)`."""

    name: str
    test: Mask
    train: Mask


def splits_of(runs: Sequence[Run]) -> dict[str, tuple[Fold, ...]]:
    """The folds of every split, by the split's name.

    A run that names no version of its engine is in no fold of the splits by version, and in the fit of all of them: a
    version that is left out may be hidden among them, which only makes such a fold easier.
    """
    places = [place_of(run) for run in runs]
    versions = {(p.engine, p.version) for p in places if p.version != UNRECORDED}
    newest = {engine: max((v for e, v in versions if e == engine), key=version_order) for engine, _ in versions}
    found = {
        "deployment": _deployments(places),
        "model": _by(places, lambda p: p.model),
        "gpu": _by(places, lambda p: p.gpu),
        "version": _by(places, lambda p: f"{p.engine} {p.version}" if p.version != UNRECORDED else None),
        "newest version": _by(places, lambda p: p.engine if p.version == newest.get(p.engine) else None),
        "gpu and version": _gpu_and_version(places),
        "generation": _by(places, lambda p: p.generation),
        "kind": _by(runs, _kind),
        "precision": _by(runs, lambda r: storage(_main_dtype(r)).base.removesuffix("_block")),
        "source": _by(runs, lambda r: "same lengths" if r.same_lengths else "drawn lengths"),
    }
    return {name: folds for name, folds in found.items() if folds}


def _kind(run: Run) -> str:
    """What a model is built of: its attention where that is not the usual one, or else its networks."""
    arch = run.entry.arch
    unusual = [a for a in arch.attentions if not isinstance(a, GroupedQuery)]
    return type(unusual[0]).__name__ if unusual else "experts" if arch.is_moe else "dense"


def _main_dtype(run: Run) -> str:
    dtypes = run.entry.arch.dtypes
    return dtypes.experts if run.entry.arch.is_moe else dtypes.dense_ffn


def _by(items: Sequence[T], key: Callable[[T], Hashable | None]) -> tuple[Fold, ...]:
    keys = [key(item) for item in items]
    out = []
    for value in sorted({str(k) for k in keys if k is not None}):
        test = np.array([k is not None and str(k) == value for k in keys])
        if not test.all():
            out.append(Fold(name=value, test=test, train=~test))
    return tuple(out)


def _deployments(places: Sequence[Place]) -> tuple[Fold, ...]:
    keys = [(p.engine, p.gpu, p.model, p.precision, p.version, p.layout) for p in places]
    order = sorted(set(keys))
    numbers = np.random.default_rng(SEED).permutation(len(order)) % DEPLOYMENT_FOLDS
    of = dict(zip(order, numbers, strict=True))
    folds = np.array([of[k] for k in keys])
    return tuple(Fold(name=str(n), test=folds == n, train=folds != n) for n in range(DEPLOYMENT_FOLDS))


def _gpu_and_version(places: Sequence[Place]) -> tuple[Fold, ...]:
    """An engine's named versions on each GPU: none of the GPU's runs and none of these versions' are fitted on."""
    out = []
    for gpu, engine in sorted({(p.gpu, p.engine) for p in places if p.version != UNRECORDED}):
        of = {p.version for p in places if (p.gpu, p.engine) == (gpu, engine)} - {UNRECORDED}
        on_gpu = np.array([p.gpu == gpu for p in places])
        of_version = np.array([p.engine == engine and p.version in of for p in places])
        out.append(Fold(name=f"{gpu} {engine}", test=on_gpu & of_version, train=~on_gpu & ~of_version))
    return tuple(out)
