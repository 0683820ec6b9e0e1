"""Which models an engine serves on which GPUs, and in which dtypes it reads weights and keeps the KV cache."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from itertools import product
from typing import ClassVar

from autotune.engines.command_line import CommandLine
from autotune.engines.dtype_facts import Place, no_cache, no_weights
from autotune.engines.facts import modelled
from autotune.engines.layout_rules import Violation
from autotune.engines.model_classes import lacks_class
from autotune.engines.service import Service
from costmodel.arch import Arch, checkpoint_dtype, stored_dtypes, stored_in
from costmodel.dtypes import hardware_dtype, is_quantised
from costmodel.engine import EngineTraits
from costmodel.errors import InputError
from costmodel.hardware import Gpu

_ALSO_SAID = {
    **dict.fromkeys(("fp8_e4m3", "fp8_e5m2", "fp8_inc", "fp8_ds_mla"), "fp8"),
    "fp4_mx_block16": "nvfp4",
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
}
"""What cache options take beside the names that commands are written with -> ours.

`fp4_mx_block16` has a byte for each 16 values, as NVFP4 has (SGLang, mem_cache).
"""
_NEARLY = {"fp8_ds_mla": "taken as fp8: its scales and its part in 16 bits are left out"}
"""Those of `_ALSO_SAID` that take more: of 656 bytes a token and layer, fp8 counts 576 (vLLM, flashmla_sparse.py)."""


class Supported(ABC):
    """The part of an engine that says what it serves, and in which dtypes."""

    traits: ClassVar[EngineTraits]
    title: ClassVar[str]
    """As its makers write it."""
    kv_names: ClassVar[Mapping[str, tuple[str, ...]]]
    """Dtype of the cache -> what the option takes for it; several where versions differ, newest first."""
    weight_names: ClassVar[Mapping[str, str]]
    """Dtype of weights -> the option's value that makes it of a 16-bit checkpoint when it is loaded."""
    cache_option: ClassVar[str]
    """Dtype of the cache."""

    @property
    def name(self) -> str:
        """By which studies, plan strings and files name it."""
        return self.traits.name

    def cannot_run(
        self,
        arch: Arch,
        gpu: Gpu,
        weights: Sequence[str | None],
        caches: Sequence[str | None] = (None,),
        version: str | None = None,
    ) -> str | None:
        """Why it cannot serve the model on this GPU with any of the weight and cache dtypes (None: the checkpoint's).

        `version`: None is the newest whose options are known.
        """
        if lacks_class(self.name, arch, version):
            return f"{self.title} {modelled(self.name, version)} has no class for models of {arch.model_type}"
        refusals = [self.dtype_refusal(arch, gpu, *pair, version) for pair in product(weights, caches)]
        reasons = [refusal.message for refusal in refusals if refusal is not None]
        return reasons[0] if len(reasons) == len(refusals) else None

    def dtype_refusal(
        self, arch: Arch, gpu: Gpu, weight: str | None, cache: str | None, version: str | None, *, pools: bool = False
    ) -> Violation | None:
        """Why it does not run with weights and a cache in these dtypes (None: the checkpoint's), by a rule's name.

        `pools`: prompts are prefilled by one pool and decoded by another.
        """
        place = Place(arch=stored_in(arch, weight), gpu=gpu, pools=pools)
        for dtype in sorted(stored_dtypes(arch, weight)):
            if (why := self.reads_no(dtype, place, version)) is not None:
                return Violation(rule="weight_kernels", message=why)
        if cache is None:
            return None
        if cache not in self.kv_names and cache != arch.kv_dtype:
            return Violation(rule="kv_dtype_support", message=self._cache_dtypes(cache))
        if (where := no_cache(self.name, place, cache, version)) is not None:
            return Violation(rule="kv_dtype_support", message=f"{self.title} keeps no {cache} KV cache{where}")
        return None

    def unchecked(self, arch: Arch, weight: str | None) -> tuple[str, ...]:
        """What it asks of a checkpoint in these dtypes (None: its own) that a model's description does not say."""
        return ()

    def reads_no(self, dtype: str, place: Place, version: str | None) -> str | None:
        """Why it reads no weights that are stored in a dtype; None where nothing says so."""
        where = no_weights(self.name, place, dtype, version)
        if where is None:
            return None
        words = (
            f"{dtype} weights that are multiplied as such (W8A8)"
            if hardware_dtype(dtype) == "int8"
            else f"{dtype} weights"
        )
        return f"{self.title} {'has no native kernels for' if where else 'reads no'} {words}{where}"

    def kv_name(self, dtype: str, choices: tuple[str, ...] = ()) -> str:
        """What the cache option calls a dtype; `choices` are those of its version, empty where it lists none.

        Raises `InputError`, `kv_dtype_support`, where the engine has no such cache.
        """
        for name in self.kv_names.get(dtype, ()):
            if not choices or name in choices:
                return name
        raise InputError.single("plan", f"kv_dtype_support: {self._cache_dtypes(dtype, choices)}")

    def _cache_dtypes(self, dtype: str, choices: tuple[str, ...] = ()) -> str:
        known = ", ".join(k for k, v in self.kv_names.items() if not choices or set(v) & set(choices))
        return f"{self.name} keeps a KV cache in {known}, got {dtype}"

    def cache_value(self, service: Service, choices: tuple[str, ...] = ()) -> str | None:
        """What the cache option is told; None where the plan has the checkpoint's dtype.

        Raises `InputError`, `kv_dtype_support`, where the engine has no such cache, or none on the GPUs of the plan.
        """
        dtype, knobs = service.knobs.kv_dtype, service.knobs
        if dtype is None or (dtype not in self.kv_names and dtype == service.arch.kv_dtype):
            return None
        name = self.kv_name(dtype, choices)
        refusal = self.dtype_refusal(service.arch, service.cluster.gpu, knobs.weight_dtype, dtype, service.version)
        if refusal is not None:
            raise InputError.single("plan", f"{refusal.rule}: {refusal.message}")
        return name

    def write_dtypes(self, line: CommandLine, service: Service) -> None:
        """The cache's dtype and the quantisation to make when loading, where the plan has others than the checkpoint.

        Raises `InputError` as `cache_value` and `weight_name` do.
        """
        if service.knobs.kv_dtype is not None:
            choices = line.options.require(self.cache_option).choices
            if (name := self.cache_value(service, choices)) is not None:
                line.value(self.cache_option, name)
        if (quantization := self.weight_name(service)) is not None:
            line.value("quantization", quantization)

    def kv_dtype(self, name: str) -> str | None:
        """Ours for what the option says; None for `auto`, the checkpoint's. The name itself where it is not ours."""
        ours = (dtype for dtype, names in self.kv_names.items() if name in names)
        return None if name == "auto" else next(ours, _ALSO_SAID.get(name, name))

    def unpriced_cache(self, name: str, arch: Arch | None) -> str | None:
        """What the cache option says, where the cache that it asks for is not the one that is scored; else None."""
        dtype = self.kv_dtype(name)
        if dtype is None or dtype in self.kv_names or dtype == (None if arch is None else arch.kv_dtype):
            return f"{name} ({_NEARLY[name]})" if name in _NEARLY else None
        return name

    def weight_name(self, service: Service) -> str | None:
        """The quantisation to make when loading; None where the checkpoint already is of the plan's dtype.

        Raises `InputError`, `weight_dtype_support`, where it cannot make that dtype: none makes it of a checkpoint that
        is quantised otherwise, and the option alone keeps vLLM and SGLang from starting with one.
        """
        dtype, stored = service.knobs.weight_dtype, checkpoint_dtype(service.arch)
        if dtype is None or service.model_given or stored_in(service.arch, dtype) == service.arch:
            return None
        made = {} if is_quantised(stored) else self.weight_names
        if dtype not in made:
            raise InputError.single(
                "plan",
                f"weight_dtype_support: {self.name} makes {', '.join(made) or 'no dtype'} of a checkpoint in {stored} "
                f"when it loads it, the plan has weights in {dtype}: name a checkpoint that is stored so with --model",
            )
        return made[dtype]
