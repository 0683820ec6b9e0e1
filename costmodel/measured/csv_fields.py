"""Reading rows of measured runs: models, GPUs, layouts and numbers by column, with every problem named."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias, TypeVar

from costmodel.arch import Arch, load_model, read_config_file, with_dtypes
from costmodel.dtypes import BYTES_PER_WEIGHT, storage
from costmodel.engine import CacheDtype, EngineTraits
from costmodel.errors import InputError, Problem
from costmodel.files import read_file
from costmodel.hardware import Gpu, load_gpu
from costmodel.plan.layout import Layout

Measured = TypeVar("Measured")
ReadRow: TypeAlias = Callable[
    [Mapping[str, str], str, EngineTraits | None, Arch | None, Gpu | None, list[Problem]], Measured | None
]
MAX_ROWS = 5_000
MAX_RUNS_BYTES = 50_000_000
"""Every run is held against every other: memory and time rise with the square of their number."""
_DTYPE_NAMES = {"bfloat16": "bf16", "float16": "fp16", "w4a16_mxfp4": "mxfp4", "int4_wo": "int4"}
PRECISIONS: Mapping[str, str] = MappingProxyType(
    {"": "", "fp4": "nvfp4"}
    | {
        name: "" if dtype in ("bf16", "fp16") else dtype
        for name, dtype in (*zip(BYTES_PER_WEIGHT, BYTES_PER_WEIGHT, strict=True), *_DTYPE_NAMES.items())
    }
)
"""Precision of a row -> how it says that weights are stored; empty: as in the checkpoint, as 16 bits may be of products
alone."""


def read_rows(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV by column, stripped; raises `InputError` where a required column lacks or nothing is in it."""
    raw = read_file(path, MAX_RUNS_BYTES)
    try:
        with io.TextIOWrapper(io.BytesIO(raw), newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [c for c in required if c not in (reader.fieldnames or ())]
            if missing:
                raise InputError.single(
                    str(path), f"must have the columns {', '.join(required)}; lacks {', '.join(missing)}"
                )
            rows = []
            for row in reader:
                rows.append(
                    {k: (v or "").strip() for k, v in row.items() if isinstance(k, str) and not isinstance(v, list)}
                )
                if len(rows) > MAX_ROWS:
                    raise InputError.single(
                        str(path), f"must have at most {MAX_ROWS:,} rows; give fewer repeats of a run"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError.single(str(path), f"is not CSV: {error}") from error
    if not rows:
        raise InputError.single(str(path), "must hold at least one run, got none")
    return rows


class ModelFolder:
    """Architectures by name: the user's config files first, then the catalog."""

    def __init__(self, folder: Path | None) -> None:
        self._files: dict[str, Path] = {}
        if folder is not None:
            if not folder.is_dir():
                raise InputError.single("--models", f"must be a folder of config.json files, got {folder}")
            for file in sorted(folder.rglob("*.json")):
                for key in (file.parent.name if file.name == "config.json" else file.name, file.name):
                    self._files.setdefault(self._key(key), file)

    @staticmethod
    def _key(name: str) -> str:
        return name.replace("/", "--").removesuffix(".json").removesuffix("_config").lower()

    def load(self, name: str) -> Arch:
        """The architecture of a model."""
        file = self._files.get(self._key(name)) or self._files.get(self._key(name.rsplit("/", 1)[-1]))
        return load_model(name) if file is None else read_config_file(file)


def _dtype(name: str) -> str | None:
    return _DTYPE_NAMES.get(name, name) or None


def read_arch(
    row: Mapping[str, str],
    at: str,
    known: ModelFolder,
    cells: dict[tuple[str, str, str], Arch | None],
    problems: list[Problem],
) -> Arch | None:
    """The model of a row with the dtypes that it names; None, and a problem, where it is empty or not known.

    A precision stands for the dtypes of weights where the row has none of its own, and it is a quantised one.
    """
    if not row["model"]:
        problems.append(Problem(path=at, message="model must not be empty"))
        return None
    dtypes = row.get("gemm_dtype", ""), row.get("moe_dtype", "")
    precision = row.get("precision", "")
    if precision not in PRECISIONS:
        names = ", ".join(filter(None, PRECISIONS))
        message = f"precision must be one of {names}, or empty for the checkpoint's own, got {precision!r}"
        if message not in {p.message for p in problems}:
            problems.append(Problem(path=at, message=message))
        return None
    if not any(dtypes):
        dtypes = (PRECISIONS[precision],) * 2
    key = (row["model"], *dtypes)
    if key in cells:
        return cells[key]
    cells[key] = None
    try:
        arch = known.load(row["model"])
    except InputError as error:
        said = {p.message for p in problems}
        found = [Problem(path=at, message=f"{p.path}: {p.message}") for p in error.problems]
        problems += [p for p in found if p.message not in said]
        return None
    gemm, moe = _dtype(key[1]), _dtype(key[2])
    bad = [d for d in (gemm, moe) if d is not None and d not in BYTES_PER_WEIGHT]
    if bad:
        problems.append(
            Problem(path=at, message=f"dtype must be one of {', '.join(BYTES_PER_WEIGHT)}, got {', '.join(bad)}")
        )
        return None
    if moe == "nvfp4" and storage(arch.dtypes.experts).base == "mxfp4":
        # benchmarks call any run in FP4 so (gpt-oss): no engine makes NVFP4 of a checkpoint that is trained in MXFP4
        gemm = moe = None
    cells[key] = with_dtypes(arch, gemm_dtype=gemm, moe_dtype=moe)
    return cells[key]


def read_gpu(name: str, at: str, clusters: dict[str, Gpu | None], problems: list[Problem]) -> Gpu | None:
    """The GPU of that name; None, and a problem, where there is none or it is not known."""
    if not name:
        problems.append(Problem(path=at, message="gpu must not be empty"))
        return None
    if name not in clusters:
        clusters[name] = None
        try:
            clusters[name] = load_gpu(name, "Describe it in [cluster.gpu] of a study, and give that with --study")
        except InputError as error:
            problems += [Problem(path=at, message=f"{p.path}: {p.message}") for p in error.problems]
    return clusters[name]


def read_servers(
    path: Path,
    required: Sequence[str],
    engines: Mapping[str, EngineTraits],
    models: Path | None,
    read: ReadRow[Measured],
    own_gpus: Mapping[str, Gpu],
) -> tuple[Measured, ...]:
    """What `read` makes of each row of a CSV, given its place in the file and the engine, model and GPU that it names.

    `own_gpus`: by name, GPUs that go before the catalog's.

    Of these three, what is not known is None and a problem: `read` says what else is wrong and returns None.

    Raises:
        InputError: every row and column that cannot be read; unknown models and GPUs once each, where they come first.
    """
    problems: list[Problem] = []
    known = ModelFolder(models)
    cells: dict[tuple[str, str, str], Arch | None] = {}
    gpus: dict[str, Gpu | None] = dict(own_gpus)
    out = []
    for line, row in enumerate(read_rows(path, required), start=2):
        at, engine = f"{path}:{line}", engines.get(row["engine"])
        arch, gpu = read_arch(row, at, known, cells, problems), read_gpu(row["gpu"], at, gpus, problems)
        if engine is None:
            message = f"engine must be one of {', '.join(engines)}, got {row['engine']!r}"
            problems.append(Problem(path=at, message=message))
        found = read(row, at, engine, arch, gpu, problems)
        if found is not None:
            out.append(found)
    if problems:
        raise InputError(problems)
    return tuple(out)


def read_number(
    row: Mapping[str, str], name: str, at: str, problems: list[Problem], default: float | None = None
) -> float:
    """A positive number of a row; 1, and a problem, where it is none."""
    text = row.get(name, "")
    if not text and default is not None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= 0:
        problems.append(Problem(path=at, message=f"{name} must be a positive number, got {text!r}"))
        return 1.0
    return value


def read_ms(row: Mapping[str, str], name: str, at: str, problems: list[Problem]) -> float:
    """Seconds of a column of milliseconds; NaN where it is empty."""
    return read_number(row, name, at, problems) * 1e-3 if row.get(name) else math.nan


def read_layout(row: Mapping[str, str], at: str, arch: Arch, problems: list[Problem]) -> Layout | None:
    """The layout of a row on one node; None, and a problem, where its degrees do not fit."""
    whole = {n: int(read_number(row, n, at, problems, 1.0)) for n in ("pp", "attn_tp", "attn_dp")}
    width = whole["attn_tp"] * whole["attn_dp"]
    said = any(row.get(name) for name in ("moe_tp", "moe_ep"))
    # engines split experts as they split attention, unless they are told otherwise
    given = [int(read_number(row, n, at, problems, 1.0)) for n in ("moe_tp", "moe_ep")] if said else [width, 1]
    moe = (given[0], given[1]) if arch.is_moe else (1, 1)
    if arch.is_moe and moe[0] * moe[1] != width:
        problems.append(
            Problem(path=at, message=f"attn_tp x attn_dp must equal moe_tp x moe_ep, got {width} and {moe[0] * moe[1]}")
        )
        return None
    layers, pp = arch.num_hidden_layers, whole["pp"]
    if pp > layers:
        problems.append(Problem(path=at, message=f"pp must be at most the model's {layers} layers, got {pp}"))
        return None
    # dense models: data parallelism is independent servers that share the load
    replicas = 1 if arch.is_moe else whole["attn_dp"]
    return Layout(
        replicas=replicas,
        pp=pp,
        attn_tp=whole["attn_tp"],
        attn_dp=whole["attn_dp"] if arch.is_moe else 1,
        moe_tp=moe[0],
        moe_ep=moe[1],
        stage_layers=tuple(layers // pp + (1 if i < layers % pp else 0) for i in range(pp)),
    )


def read_setting(row: Mapping[str, str], name: str, at: str, problems: list[Problem]) -> float | None:
    """A server's setting where the file has it; 0 stands for off."""
    text = row.get(name, "")
    return None if not text else 0.0 if text.strip("0.") == "" else read_number(row, name, at, problems)


def inferred_kv_dtype(arch: Arch, gpu: Gpu, engine: EngineTraits, precision: str) -> str | None:
    """Cache dtype, which such files do not record, inferred from which runs queue for KV room.

    Checkpoints in FP8 blocks ask for no FP8 cache, but published recipes for Blackwell set one.
    """
    if engine.quantised_cache is CacheDtype.ACTIVATIONS or precision not in ("fp8", "fp4"):
        return None
    blocks = arch.dtypes.attention == "fp8_block" and not gpu.generation.startswith("blackwell")
    return None if blocks and engine.quantised_cache is CacheDtype.CHECKPOINT else "fp8"
