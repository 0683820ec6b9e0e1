"""Run by the engines' own Python: stages of models built by SGLang's own classes, as `build_vllm` has it.

A stage that is refused as it is gets what keeps dense layers and shared experts whole on every rank; `needs` says
what it took. `stages` is of SGLang's resolution and check of the options.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from read_sglang import NAMES, pretend_h100
from stand_ins import Group, first_line, stand_in

PER_NODE = 8
"""GPUs."""
DENSE, SHARED = ("--moe-dense-tp-size", "1"), "SGLANG_SHARED_EXPERT_TP1"
NEEDS = ((False, False), (True, False), (False, True), (True, True))
"""Dense layers whole, shared experts whole."""


def _resolved(folder: str, shape: dict[str, Any], pp: int, needs: tuple[bool, bool]) -> Any:
    from sglang.srt.server_args import prepare_server_args

    width = shape["attn_tp"] * shape["attn_dp"]
    words = ["--model-path", folder, "--load-format", "dummy", "--skip-tokenizer-init", "--device", "cuda"]
    words += ["--tp-size", str(width), "--ep-size", str(shape["moe_ep"]), "--pp-size", str(pp)]
    words += ["--attn-dp-size", str(shape["attn_dp"])] if shape["attn_dp"] > 1 else []
    if width * pp > PER_NODE:
        words += ["--nnodes", str(width * pp // PER_NODE), "--node-rank", "0", "--dist-init-addr", "10.0.0.1:20000"]
    args = prepare_server_args([*words, *(DENSE if needs[0] else ())])
    args.resolve_once()
    args.check_server_args()
    return args


def _groups(shape: dict[str, Any]) -> dict[str, int]:
    width = shape["attn_tp"] * shape["attn_dp"]
    return {
        "world": width, "tp": width, "attn_tp": shape["attn_tp"], "shared_experts_tp": width, "attn_cp": 1, "dcp": 1,
        "moe_dp": 1, "moe_ep": shape["moe_ep"], "moe_tp": shape["moe_tp"], "pp": 1,
    }  # fmt: skip


def _build(folder: str, shape: dict[str, Any], needs: tuple[bool, bool]) -> None:
    import torch
    from sglang.srt.configs.load_config import LoadConfig
    from sglang.srt.configs.model_config import ModelConfig
    from sglang.srt.distributed import parallel_state
    from sglang.srt.layers.moe import initialize_moe_config
    from sglang.srt.layers.radix_attention import RadixAttention
    from sglang.srt.model_loader import loader
    from sglang.srt.runtime_context import get_context

    os.environ[SHARED] = str(int(needs[1]))
    args = _resolved(folder, shape, 1, needs)
    parallel = get_context().parallel
    parallel.clear_stamp()
    get_context().set_server_args(args)
    sizes = _groups(shape)
    ranks = ("tp", "pp", "attn_tp", "attn_cp", "attn_dp", "attn_dcp", "dcp", "moe_dp", "moe_ep", "moe_tp", "dp")
    parallel.override_permanently(
        **{f"{name}_group": Group(size, name) for name, size in sizes.items()}, **{f"{name}_rank": 0 for name in ranks}
    )
    for name, size in sizes.items():
        setattr(parallel_state, f"_{name.upper()}", Group(size, name))
    initialize_moe_config()
    model, load = ModelConfig.from_server_args(args), LoadConfig(load_format="dummy")
    quantisation = loader._get_quantization_config(model, load)  # noqa: SLF001  # what `get_model` calls first
    torch.set_default_dtype(model.dtype)
    with torch.device("meta"):
        made = loader._initialize_model(model, load, quantisation)  # noqa: SLF001  # and next
    heads = {part.tp_q_head_num for part in made.modules() if isinstance(part, RadixAttention)}
    if heads != {model.num_attention_heads // shape["attn_tp"]}:
        raise ValueError(f"attention of {sorted(heads)} heads a rank, not cut over attention TP")


def _stages(folder: str, layers: int, shape: dict[str, Any], pp: int, needs: tuple[bool, bool]) -> None:
    from sglang.srt.distributed.utils import get_pp_indices

    _resolved(folder, shape, pp, needs)
    if min(end - start for start, end in (get_pp_indices(layers, rank, pp) for rank in range(pp))) < 1:
        raise ValueError("a stage without a layer")


def _said(call: Any) -> str | None:
    """What a call raises, in one line; None where it returns."""
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            call()
    except (Exception, SystemExit) as raised:  # whatever it says is the verdict
        return first_line(raised)
    return None


def _verdict(model: dict[str, Any], shape: dict[str, Any]) -> dict[str, Any]:
    config = Path(model["whole"], "config.json").read_text(encoding="utf-8")
    for needs in NEEDS if "n_shared_experts" in config else NEEDS[:1]:
        built = _said(partial(_build, model["short"], shape, needs))
        if built is None:
            break
    tried = {pp: partial(_stages, model["whole"], model["layers"], shape, pp, needs) for pp in shape["pp"]}
    words = [*([" ".join(DENSE)] if needs[0] else []), *([f"{SHARED}=1"] if needs[1] else [])]
    stages = {pp: None if built is not None else _said(call) for pp, call in tried.items()}
    return {"built": built, "stages": stages, "needs": words if built is None else []}


def main() -> None:
    """Reads shapes, writes verdicts."""
    asked = json.load(sys.stdin)
    import torch._inductor.compile_fx  # noqa: F401  # what looks into Triton has to look before it is stood in for

    stand_in(*NAMES)
    pretend_h100()
    for shape in asked["shapes"]:
        print(json.dumps(_verdict(asked["models"][shape["model"]], shape)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
