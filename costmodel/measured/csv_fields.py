"""Reading rows of measured runs: models, GPUs, layouts and numbers by column, with every problem named."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from costmodel.arch import Arch, load_model, read_config_file, with_dtypes
from costmodel.dtypes import BYTES_PER_WEIGHT, storage
from costmodel.engine import CacheDtype, EngineTraits
from costmodel.errors import InputError, Problem
from costmodel.estimate.batch import PlanEntry
from costmodel.hardware import Cluster, Gpu, load_gpu
from costmodel.measured.benchmark_recipes import AS_CHECKPOINT
from costmodel.measured.csv_columns import Columns, read_rows
from costmodel.plan.layout import Layout

Measured = TypeVar("Measured")
SERVER_COLUMNS = ("id", "gpu", "engine", "engine_version", "model", "precision", "gemm_dtype", "moe_dtype", "kv_dtype")
"""Columns of every kind of file that say which server ran."""
LAYOUT_COLUMNS = ("pp", "attn_tp", "attn_dp", "moe_tp", "moe_ep")
MOST_WHOLE = 10_000_000
"""Of a degree, a count or a number of tokens: far more than there are of any, and few enough to be multiplied."""
LENGTHS = ("", "fixed", "uniform")
"""How a row says that lengths are drawn; empty: it does not."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a row says was measured."""

    engine: EngineTraits
    arch: Arch
    gpu: Gpu

    def entry(self, layout: Layout, kv_dtype: str | None, precision: str, engine_version: str | None) -> PlanEntry:
        """A layout's plan; a cache dtype that is not recorded is inferred from which runs queue for KV room.

        Checkpoints in FP8 blocks ask for no FP8 cache, but published recipes for Blackwell set one.
        """
        if kv_dtype is None and self.engine.quantised_cache is not CacheDtype.ACTIVATIONS:
            blocks = self.arch.dtypes.attention == "fp8_block" and not self.gpu.generation.startswith("blackwell")
            if precision in ("fp8", "fp4") and not (blocks and self.engine.quantised_cache is CacheDtype.CHECKPOINT):
                kv_dtype = "fp8"
        return PlanEntry(
            arch=self.arch,
            cluster=Cluster(gpus=layout.gpus, gpu=self.gpu, gpus_per_node=self.gpu.gpus_per_node),
            engine=self.engine,
            layout=layout,
            kv_dtype=None if kv_dtype == AS_CHECKPOINT else kv_dtype,
            engine_version=engine_version,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row's cells by column, its place in the file, and the file's problems, to which its own are added."""

    cells: Mapping[str, str]
    at: str
    problems: list[Problem]

    def problem(self, message: str) -> None:
        """Add one."""
        self.problems.append(Problem(path=self.at, message=message))

    def text(self, name: str) -> str:
        """What is in a column; empty where the file has no such column."""
        return self.cells.get(name, "")

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number; 1, and a problem, where it is none."""
        text = self.text(name)
        if not text and default is not None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value <= 0:
            self.problem(f"{name} must be a positive number, got {text!r}")
            return 1.0
        return value

    def seconds(self, name: str) -> float:
        """Seconds of a column of milliseconds; NaN where it is empty."""
        return self.number(name) * 1e-3 if self.text(name) else math.nan

    def setting(self, name: str) -> float | None:
        """A server's setting where the file has it; 0 stands for off."""
        text = self.text(name)
        return None if not text else 0.0 if text.strip("0.") == "" else self.number(name)

    def whole(self, name: str, default: int | None = None) -> int:
        """A positive whole number of at most `MOST_WHOLE`; 1, and a problem, where it is none."""
        value = self.number(name, None if default is None else float(default))
        if value.is_integer() and value <= MOST_WHOLE:
            return int(value)
        most = f" of at most {MOST_WHOLE:,}" if value.is_integer() else ""
        self.problem(f"{name} must be a whole number{most}, got {self.text(name)!r}")
        return 1

    def whole_setting(self, name: str) -> int | None:
        """A server's setting that is a whole number, where the file has it; 0 stands for off."""
        text = self.text(name)
        return None if not text else 0 if text.strip("0.") == "" else self.whole(name)

    def lengths(self) -> str:
        """One of `LENGTHS`; empty, and a problem, where it is none."""
        text = self.text("lengths").lower()
        if text in LENGTHS:
            return text
        self.problem(f"lengths must be {' or '.join(filter(None, LENGTHS))}, or empty, got {self.text('lengths')!r}")
        return ""

    def layout(self, arch: Arch) -> Layout | None:
        """The layout on one node; None, and a problem, where its degrees do not fit."""
        before = len(self.problems)
        pp, attn_tp, attn_dp = (self.whole(name, 1) for name in ("pp", "attn_tp", "attn_dp"))
        moe_tp, moe_ep = 1, 1
        if self.text("moe_tp") or self.text("moe_ep"):
            moe_tp, moe_ep = (self.whole(name, 1) for name in ("moe_tp", "moe_ep"))
        elif arch.is_moe:
            # engines split experts as they split attention, unless they are told otherwise
            moe_tp = attn_tp * attn_dp
        if len(self.problems) > before:
            return None
        if arch.is_moe and moe_tp * moe_ep != attn_tp * attn_dp:
            self.problem(f"attn_tp x attn_dp must equal moe_tp x moe_ep, got {attn_tp * attn_dp} and {moe_tp * moe_ep}")
            return None
        layers = arch.num_hidden_layers
        if pp > layers:
            self.problem(f"pp must be at most the model's {layers} layers, got {pp}")
            return None
        return Layout(
            # dense models: data parallelism is independent servers that share the load
            replicas=1 if arch.is_moe else attn_dp,
            pp=pp,
            attn_tp=attn_tp,
            attn_dp=attn_dp if arch.is_moe else 1,
            moe_tp=moe_tp if arch.is_moe else 1,
            moe_ep=moe_ep if arch.is_moe else 1,
            stage_layers=tuple(layers // pp + (1 if i < layers % pp else 0) for i in range(pp)),
        )


def read_servers(
    path: Path,
    columns: Columns,
    engines: Mapping[str, EngineTraits],
    models: Path | None,
    read: Callable[[Row, Server | None], Measured | None],
    own_gpus: Mapping[str, Gpu],
) -> tuple[Measured, ...]:
    """What `read` makes of each row of a CSV and its server.

    `own_gpus`: by name, GPUs that go before the catalog's.

    Where its engine, model or GPU is not known there is a problem and no server: `read` adds what else is wrong with
    the row to its problems and returns None.

    Raises:
        InputError: every row and column that cannot be read; unknown models and GPUs once each, where they come first.
    """
    problems: list[Problem] = []
    known = ModelFolder(models)
    archs: dict[tuple[str, str, str], Arch | None] = {}
    gpus: dict[str, Gpu | None] = dict(own_gpus)
    out = []
    for line, cells in enumerate(read_rows(path, columns), start=2):
        row, engine = Row(cells=cells, at=f"{path}:{line}", problems=problems), engines.get(cells["engine"])
        arch, gpu = _arch(row, known, archs), _gpu(row, gpus)
        if engine is None:
            row.problem(f"engine must be one of {', '.join(engines)}, got {cells['engine']!r}")
        server = None if engine is None or arch is None or gpu is None else Server(engine=engine, arch=arch, gpu=gpu)
        found = read(row, server)
        if found is not None:
            out.append(found)
    if problems:
        raise InputError(problems)
    return tuple(out)


def _arch(row: Row, known: ModelFolder, archs: dict[tuple[str, str, str], Arch | None]) -> Arch | None:
    """The model of a row with the dtypes that it names; None, and a problem, where it is empty or not known.

    A precision stands for the dtypes of weights where the row has none of its own, and it is a quantised one.
    """
    if not row.text("model"):
        row.problem("model must not be empty")
        return None
    dtypes = row.text("gemm_dtype"), row.text("moe_dtype")
    precision = row.text("precision")
    if precision not in PRECISIONS:
        names = ", ".join(filter(None, PRECISIONS))
        message = f"precision must be one of {names}, or empty for the checkpoint's own, got {precision!r}"
        if message not in {p.message for p in row.problems}:
            row.problem(message)
        return None
    if not any(dtypes):
        dtypes = (PRECISIONS[precision],) * 2
    key = (row.text("model"), *dtypes)
    if key in archs:
        return archs[key]
    archs[key] = None
    try:
        arch = known.load(row.text("model"))
    except InputError as error:
        said = {p.message for p in row.problems}
        for message in (f"{p.path}: {p.message}" for p in error.problems):
            if message not in said:
                row.problem(message)
        return None
    gemm, moe = (_DTYPE_NAMES.get(name, name) or None for name in dtypes)
    bad = [d for d in (gemm, moe) if d is not None and d not in BYTES_PER_WEIGHT]
    if bad:
        row.problem(f"dtype must be one of {', '.join(BYTES_PER_WEIGHT)}, got {', '.join(bad)}")
        return None
    if moe == "nvfp4" and storage(arch.dtypes.experts).base == "mxfp4":
        # benchmarks call any run in FP4 so (gpt-oss): no engine makes NVFP4 of a checkpoint that is trained in MXFP4
        gemm = moe = None
    archs[key] = with_dtypes(arch, gemm_dtype=gemm, moe_dtype=moe)
    return archs[key]


def _gpu(row: Row, gpus: dict[str, Gpu | None]) -> Gpu | None:
    """The GPU of a row; None, and a problem, where it is empty or not known."""
    name = row.text("gpu")
    if not name:
        row.problem("gpu must not be empty")
        return None
    if name not in gpus:
        gpus[name] = None
        try:
            gpus[name] = load_gpu(name, "Describe it in [cluster.gpu] of a study, and give that with --study")
        except InputError as error:
            for found in error.problems:
                row.problem(f"{found.path}: {found.message}")
    return gpus[name]
