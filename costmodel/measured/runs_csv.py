"""Reading files of measured serving runs: CSV, columns by name.

What such a file does not record is taken as benchmarks of InferenceMAX's kind set it (`benchmark_recipes`): whoever
has other settings gives them in columns of their own, `max_num_batched_tokens`, `kv_dtype`, `scheduler_recv_interval`
(SGLang) and `batch_wait_timeout_iters` (TensorRT-LLM).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

from costmodel.arch import Arch, load_model, read_config_file, with_dtypes
from costmodel.calibration.data_files import BORROWED_FROM
from costmodel.dtypes import BYTES_PER_WEIGHT, KV_BYTES, storage
from costmodel.engine import CacheDtype, EngineTraits
from costmodel.errors import InputError, Problem
from costmodel.estimate.batch import PlanEntry
from costmodel.files import read_file
from costmodel.hardware import Cluster, Gpu, load_gpu
from costmodel.measured.benchmark_recipes import AS_CHECKPOINT, ServerSettings, recipe_settings
from costmodel.measured.runs import BATCHED_TOKENS, Run
from costmodel.plan.layout import Layout

REQUIRED = ("gpu", "engine", "model", "isl", "osl", "concurrency", "attn_tp")
UNIFORM_MEAN = 0.9
"""Lengths drawn from [0.8, 1.0] of the nominal ones have this mean."""
MAX_ROWS = 100_000
MAX_RUNS_BYTES = 50_000_000
"""About 1 kB of memory for every row, and ten times the file for its fields."""
_DTYPE_NAMES = {"bfloat16": "bf16", "float16": "fp16", "w4a16_mxfp4": "mxfp4", "int4_wo": "int4"}


def read_runs(path: Path, engines: Mapping[str, EngineTraits], models: Path | None = None) -> tuple[Run, ...]:
    """Read a CSV with the columns of `REQUIRED` and more; unknown columns are ignored.

    Args:
        path: of the file.
        engines: that its rows may name.
        models: a folder of config.json files, matched by name, that goes before the catalog.

    Raises:
        InputError: every row and column that cannot be read; unknown models and GPUs are named once each.
    """
    rows = _read_rows(path)
    problems: list[Problem] = []
    known = _ModelFolder(models)
    cells: dict[tuple[str, str, str], Arch | None] = {}
    clusters: dict[str, Gpu | None] = {}
    out = []
    for line, row in enumerate(rows, start=2):
        at = f"{path}:{line}"
        arch = _arch(row, known, cells, problems)
        gpu = _gpu(row["gpu"], clusters, problems)
        run = _run(row, at, engines, arch, gpu, problems)
        if run is not None:
            out.append(run)
    if problems:
        raise InputError(problems)
    return tuple(out)


def _read_rows(path: Path) -> list[dict[str, str]]:
    raw = read_file(path, MAX_RUNS_BYTES)
    try:
        with io.TextIOWrapper(io.BytesIO(raw), newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [c for c in REQUIRED if c not in (reader.fieldnames or ())]
            if missing:
                raise InputError.single(
                    str(path), f"must have the columns {', '.join(REQUIRED)}; lacks {', '.join(missing)}"
                )
            rows = []
            for row in reader:
                rows.append(
                    {k: (v or "").strip() for k, v in row.items() if isinstance(k, str) and not isinstance(v, list)}
                )
                if len(rows) > MAX_ROWS:
                    raise InputError.single(str(path), f"must have at most {MAX_ROWS} rows")
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError.single(str(path), f"is not CSV: {error}") from error
    if not rows:
        raise InputError.single(str(path), "must hold at least one run, got none")
    return rows


class _ModelFolder:
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


def _arch(
    row: Mapping[str, str],
    known: _ModelFolder,
    cells: dict[tuple[str, str, str], Arch | None],
    problems: list[Problem],
) -> Arch | None:
    key = (row["model"], row.get("gemm_dtype", ""), row.get("moe_dtype", ""))
    if key in cells:
        return cells[key]
    cells[key] = None
    try:
        arch = known.load(row["model"])
    except InputError as error:
        problems += [p for p in error.problems if p not in problems]
        return None
    gemm, moe = _dtype(key[1]), _dtype(key[2])
    bad = [d for d in (gemm, moe) if d is not None and d not in BYTES_PER_WEIGHT]
    if bad:
        problems.append(
            Problem(path="dtype", message=f"must be one of {', '.join(BYTES_PER_WEIGHT)}, got {', '.join(bad)}")
        )
        return None
    if moe == "nvfp4" and storage(arch.dtypes.experts).base == "mxfp4":
        # benchmarks call any run in FP4 so (gpt-oss): no engine makes NVFP4 of a checkpoint that is trained in MXFP4
        gemm = moe = None
    cells[key] = with_dtypes(arch, gemm_dtype=gemm, moe_dtype=moe)
    return cells[key]


def _gpu(name: str, clusters: dict[str, Gpu | None], problems: list[Problem]) -> Gpu | None:
    if name not in clusters:
        clusters[name] = None
        try:
            clusters[name] = load_gpu(name)
        except InputError as error:
            problems += error.problems
    return clusters[name]


def _number(row: Mapping[str, str], name: str, at: str, problems: list[Problem], default: float | None = None) -> float:
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


def _optional(row: Mapping[str, str], name: str, at: str, problems: list[Problem]) -> float:
    return _number(row, name, at, problems) * 1e-3 if row.get(name) else math.nan


def _run(
    row: Mapping[str, str],
    at: str,
    engines: Mapping[str, EngineTraits],
    arch: Arch | None,
    gpu: Gpu | None,
    problems: list[Problem],
) -> Run | None:
    before = len(problems)
    engine = engines.get(row["engine"])
    if engine is None:
        problems.append(Problem(path=at, message=f"engine must be one of {', '.join(engines)}, got {row['engine']!r}"))
    whole = {n: int(_number(row, n, at, problems, 1.0)) for n in ("pp", "attn_tp", "attn_dp", "moe_tp", "moe_ep")}
    isl, osl = _number(row, "isl", at, problems), _number(row, "osl", at, problems)
    concurrency = _number(row, "concurrency", at, problems)
    ttft_s, tpot_s = _optional(row, "ttft_ms", at, problems), _optional(row, "tpot_ms", at, problems)
    if arch is None or gpu is None or engine is None or len(problems) > before:
        return None
    width = whole["attn_tp"] * whole["attn_dp"]
    moe = (whole["moe_tp"], whole["moe_ep"]) if arch.is_moe else (1, 1)
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
    layout = Layout(
        replicas=replicas,
        pp=pp,
        attn_tp=whole["attn_tp"],
        attn_dp=whole["attn_dp"] if arch.is_moe else 1,
        moe_tp=moe[0],
        moe_ep=moe[1],
        stage_layers=tuple(layers // pp + (1 if i < layers % pp else 0) for i in range(pp)),
    )
    mean = UNIFORM_MEAN if row.get("lengths") == "uniform" else 1.0
    precision = row.get("precision", "") or "bf16"
    said = ServerSettings(
        max_num_batched_tokens=_setting(row, "max_num_batched_tokens", at, problems),
        kv_dtype=row.get("kv_dtype") or None,
        poll_steps=_setting(row, "scheduler_recv_interval", at, problems),
        hold_steps=_setting(row, "batch_wait_timeout_iters", at, problems),
    )
    if said.kv_dtype not in (None, AS_CHECKPOINT, *KV_BYTES):
        known = ", ".join((AS_CHECKPOINT, *KV_BYTES))
        problems.append(Problem(path=at, message=f"kv_dtype must be one of {known}, got {said.kv_dtype!r}"))
    if len(problems) > before:
        return None
    recipe = ServerSettings()
    if row.get("lengths") == "uniform":
        recipe = recipe_settings(
            engine=engine.name,
            model=row["model"],
            generation=BORROWED_FROM[gpu.generation],
            precision=precision,
            isl=isl,
            osl=osl,
            gpus=layout.gpus,
            concurrency=concurrency,
        )
    server = said.filled_from(recipe)
    kv_dtype = server.kv_dtype or _kv_dtype(arch, gpu, engine, precision)
    return Run(
        id=row.get("id", "") or at,
        gpu=row["gpu"],
        engine=engine.name,
        engine_version=row.get("engine_version", ""),
        model=row["model"],
        precision=precision,
        isl=isl,
        osl=osl,
        concurrency=concurrency,
        entry=PlanEntry(
            arch=arch,
            cluster=Cluster(gpus=layout.gpus, gpu=gpu, gpus_per_node=gpu.gpus_per_node),
            engine=engine,
            layout=layout,
            kv_dtype=None if kv_dtype == AS_CHECKPOINT else kv_dtype,
            engine_version=row.get("engine_version", ""),
        ),
        same_lengths=row.get("lengths") == "fixed",
        mean_isl=isl * mean,
        mean_osl=max(osl * mean, 1.0),
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        batched_tokens=server.max_num_batched_tokens or BATCHED_TOKENS,
        poll_steps=server.poll_steps or 0.0,
        hold_steps=server.hold_steps or 0.0,
        by_recipe=server != said,
    )


def _setting(row: Mapping[str, str], name: str, at: str, problems: list[Problem]) -> float | None:
    """A server's setting where the file has it; 0 stands for off."""
    text = row.get(name, "")
    return None if not text else 0.0 if text.strip("0.") == "" else _number(row, name, at, problems)


def _kv_dtype(arch: Arch, gpu: Gpu, engine: EngineTraits, precision: str) -> str | None:
    """Cache dtype, which such files do not record, inferred from which runs queue for KV room.

    Checkpoints in FP8 blocks ask for no FP8 cache, but published recipes for Blackwell set one.
    """
    if engine.quantised_cache is CacheDtype.ACTIVATIONS or precision not in ("fp8", "fp4"):
        return None
    blocks = arch.dtypes.attention == "fp8_block" and not gpu.generation.startswith("blackwell")
    return None if blocks and engine.quantised_cache is CacheDtype.CHECKPOINT else "fp8"
