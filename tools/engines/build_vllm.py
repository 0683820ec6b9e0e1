"""Run by the engines' own Python: stages of models built by vLLM's own classes on the meta device, without weights.

Standard input holds `{"models": {name: {"whole", "short", "layers"}}, "shapes": [...]}`: folders of a model's
`config.json`, as it is and with one layer of each kind, and shapes `{"model", "attn_tp", "attn_dp", "moe_tp",
"moe_ep", "pp": [...]}`. Standard output gets a line for each shape, `{"built", "stages"}`: what the class says of one
stage (null: it is built), and for each `pp` what the validation of the configuration and the engine's own division of
layers say (null: they take it).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import Any
from unittest.mock import MagicMock

from read_vllm import NAMES, pretend_h100
from stand_ins import Group, first_line, stand_in

PER_NODE = 8
"""GPUs."""


def _config(folder: str, shape: dict[str, Any], pp: int) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.common.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    tp, dp = shape["attn_tp"], shape["attn_dp"]
    words = [folder, "--load-format", "dummy", "--skip-tokenizer-init"]
    words += ["--tensor-parallel-size", str(tp), "--pipeline-parallel-size", str(pp)]
    if dp > 1:
        words += ["--data-parallel-size", str(dp), "--data-parallel-size-local", "1"]
        words += ["--data-parallel-address", "10.0.0.1", "--data-parallel-rpc-port", "29550"]
    if tp * pp > PER_NODE:
        words += ["--nnodes", str(tp * pp // PER_NODE), "--node-rank", "0", "--master-addr", "10.0.0.1"]
    if shape["moe_ep"] > 1:
        words.append("--enable-expert-parallel")
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(words)
    parsed.model = parsed.model_tag
    return AsyncEngineArgs.from_cli_args(parsed).create_engine_config()


def _build(folder: str, shape: dict[str, Any]) -> None:
    import torch
    from vllm.distributed import parallel_state
    from vllm.model_executor.model_loader.utils import initialize_model

    config = _config(folder, shape, 1)
    if shape["moe_ep"] > max(config.model_config.get_num_experts(), 1):
        raise ValueError("a rank without an expert")
    tp, width = shape["attn_tp"], shape["attn_tp"] * shape["attn_dp"]
    sizes = {"WORLD": tp, "INNER_DP_WORLD": tp, "TP": tp, "ETP": tp, "PP": 1, "DP": shape["attn_dp"], "DCP": 1}
    for name, ranks in {**sizes, "PCP": 1, "EP": width, "EPLB": width}.items():
        setattr(parallel_state, f"_{name}", Group(ranks, name))
    torch.set_default_dtype(config.model_config.dtype)
    with torch.device("meta"):
        initialize_model(config)


def _stages(folder: str, layers: int, shape: dict[str, Any], pp: int) -> None:
    from vllm.distributed.utils import get_pp_indices

    _config(folder, shape, pp)
    if min(end - start for start, end in (get_pp_indices(layers, rank, pp) for rank in range(pp))) < 1:
        raise ValueError("a stage without a layer")


def _said(call: Any, *args: Any) -> str | None:
    """What a call raises, in one line; None where it returns."""
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            call(*args)
    except (Exception, SystemExit) as raised:  # whatever it says is the verdict
        return first_line(raised)
    return None


def main() -> None:
    """Reads shapes, writes verdicts."""
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    asked = json.load(sys.stdin)
    stand_in(*NAMES)
    pretend_h100()
    import torch

    torch.cuda.Stream = torch.cuda.Event = MagicMock()
    for shape in asked["shapes"]:
        model = asked["models"][shape["model"]]
        built = _said(_build, model["short"], shape)
        stages = {pp: _said(_stages, model["whole"], model["layers"], shape, pp) for pp in shape["pp"]}
        print(json.dumps({"built": built, "stages": stages}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
