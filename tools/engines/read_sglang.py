"""Run by the engines' own Python: SGLang's parser, resolution and check of options over commands in JSON.

As `read_vllm`.
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
    "triton", "sgl_kernel", "flashinfer", "deep_gemm", "deep_ep", "torchvision",
    "sglang.kernels.ops.gemm.cutedsl_dual_gemm",
)  # fmt: skip


def pretend_h100() -> None:
    """Eight H100s of one node for whoever asks PyTorch."""
    import torch
    from sglang.srt.distributed import parallel_state

    properties = MagicMock(total_memory=80 * 2**30, major=9, minor=0, multi_processor_count=132)
    properties.name = "NVIDIA H100 80GB HBM3"
    torch.version.cuda = "13.0"
    for name, value in {
        "is_available": True, "device_count": 8, "current_device": 0, "get_device_capability": (9, 0),
        "get_device_name": properties.name, "get_device_properties": properties,
        "mem_get_info": (79 * 2**30, 80 * 2**30),
    }.items():  # fmt: skip
        setattr(torch.cuda, name, lambda *_, value=value, **__: value)
    torch.cuda.Stream = torch.cuda.Event = MagicMock()
    parallel_state.in_the_same_node_as = lambda group, **_: [rank < 8 for rank in range(group.size())]


def _seen(case: dict[str, Any]) -> dict[str, Any]:
    from sglang.srt.server_args import prepare_server_args

    words = list(case["argv"])
    words[words.index("--model-path") + 1] = case["config"]
    args = prepare_server_args([*words, "--load-format", "dummy", "--skip-tokenizer-init", "--device", "cuda"])
    args.resolve_once()
    args.check_server_args()
    return {
        "gpus": args.tp_size * args.pp_size,
        "exchange": args.moe_a2a_backend,
        "experts": args.ep_size,
        "tokens": args.chunked_prefill_size,
    }


def main() -> None:
    """Reads cases, writes verdicts."""
    cases, out = json.load(sys.stdin), []
    import torch._inductor.compile_fx  # noqa: F401  # what looks into Triton has to look before it is stood in for

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
