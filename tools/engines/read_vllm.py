"""Run by the engines' own Python: vLLM's parser and its validation of a configuration, over commands in JSON.

Standard input holds a list of `{"id", "config", "argv", "env"}`, where `config` is the folder of the model's
`config.json`; standard output gets `{"id", "error", "seen"}` for each, with `error` null where vLLM takes the command.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import Any
from unittest.mock import MagicMock

from stand_ins import stand_in

NAMES = (
    "vllm._C", "vllm._C_stable_libtorch", "vllm._moe_C", "vllm._moe_C_stable_libtorch", "vllm.vllm_flash_attn",
    "vllm.model_executor.layers.mamba.ops",  # Triton's kernels, which the connectors of pools bring along
)  # fmt: skip


def pretend_h100() -> None:
    """Eight H100s for whoever asks the platform."""
    import torch
    import vllm.platforms
    from vllm.model_executor.models import registry
    from vllm.platforms.cuda import NonNvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability

    class Pretended(NonNvmlCudaPlatform):
        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:  # noqa: ARG003  # of the base
            return DeviceCapability(9, 0)

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:  # noqa: ARG003  # of the base
            return "NVIDIA H100 80GB HBM3"

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:  # noqa: ARG003  # of the base
            return 80 * 2**30

        @classmethod
        def device_count(cls) -> int:
            return 8

    torch.library.register_fake = lambda *_, **__: lambda function: function
    for operators in ("_C", "_moe_C"):
        setattr(torch.ops, operators, MagicMock(name=operators))
    # classes of models are looked at in this process, which has the stand-ins
    registry._run_in_subprocess = lambda look: look()  # noqa: SLF001  # the only place
    vllm.platforms._current_platform = Pretended()  # noqa: SLF001  # where the package keeps it


def _seen(case: dict[str, Any]) -> dict[str, Any]:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.common.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    words = [case["config"], *case["argv"][1:], "--load-format", "dummy", "--skip-tokenizer-init"]
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(words)
    validate_parsed_serve_args(parsed)
    if hasattr(parsed, "model_tag") and parsed.model_tag is not None:
        parsed.model = parsed.model_tag
    config = AsyncEngineArgs.from_cli_args(parsed).create_engine_config(headless=parsed.headless)
    parallel = config.parallel_config
    return {
        "gpus": parallel.world_size * parallel.data_parallel_size,
        "exchange": parallel.all2all_backend,
        "experts": parallel.enable_expert_parallel,
        "tokens": config.scheduler_config.max_num_batched_tokens,
    }


def main() -> None:
    """Reads cases, writes verdicts."""
    cases, out = json.load(sys.stdin), []
    stand_in(*NAMES)
    pretend_h100()
    for case in cases:
        os.environ.update(case["env"])
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                seen, error = _seen(case), None
        except (Exception, SystemExit) as raised:  # whatever it says is the verdict
            seen, error = None, f"{type(raised).__name__}: {raised} {said.getvalue()[-300:]}"
        for name in case["env"]:
            os.environ.pop(name, None)
        out.append({"id": case["id"], "error": error, "seen": seen})
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
