"""`python -m tools.engines.build [ENGINE...]`: every stage of some models built by the engines in `.engines`.

The classes of the models are the engines' own, built on PyTorch's meta device with groups of ranks of the sizes that a
layout has, and one layer of each kind; the configuration of every layout up to 128 GPUs goes through the engine's own
validation. Neither weights, kernels nor memory are tried. Verdicts are written to `tests/engines/verdicts`, against
which the tests hold our rules.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.engines.__main__ import PYTHON, ROOT, installed
from tools.engines.cases import MODELS as EXPORTED
from tools.engines.configs import write_config

VERDICTS = ROOT / "tests" / "engines" / "verdicts"
MOST_GPUS = 128
MODELS = EXPORTED | {"kimi-k2": "moonshotai--Kimi-K2-Instruct", "mixtral-8x22b": "mistralai--Mixtral-8x22B-v0.1"}
DENSE = ("llama-3.1-70b",)
Shape = dict[str, Any]


def shapes(engine: str, model: str) -> Iterator[Shape]:
    """Every stage that the engine's options can say, with the numbers of stages of it that fit; powers of two."""
    powers = [2**i for i in range(MOST_GPUS.bit_length())]
    for width in powers:
        pp = [n for n in powers if n * width <= MOST_GPUS]
        if model in DENSE:
            yield {"model": model, "attn_tp": width, "attn_dp": 1, "moe_tp": 1, "moe_ep": 1, "pp": pp}
            continue
        for dp in (n for n in powers if n <= width):
            for ep in (n for n in powers if n <= width):
                if engine == "vllm" and 1 < ep < width:
                    continue  # its expert parallelism is on or off
                yield {
                    "model": model,
                    "attn_tp": width // dp,
                    "attn_dp": dp,
                    "moe_tp": width // ep,
                    "moe_ep": ep,
                    "pp": pp,
                }


def build(engine: str, asked: Sequence[Shape]) -> list[dict[str, Any]]:
    """The engine's verdict on each shape, as `build_vllm` has it."""
    with tempfile.TemporaryDirectory() as folder:
        models = {}
        for number, (model, file) in enumerate(MODELS.items()):
            whole, short = Path(folder) / f"whole{number}", Path(folder) / f"short{number}"
            layers = write_config(whole, file)
            write_config(short, file, one_of_each=True)
            models[model] = {"whole": str(whole), "short": str(short), "layers": layers}
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(  # noqa: S603  # our own script
            [PYTHON, Path(__file__).with_name(f"build_{engine}.py")],
            input=json.dumps({"models": models, "shapes": list(asked)}),
            capture_output=True, text=True, env=env, cwd=folder, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{engine} could not be run: {done.stderr[-2000:]}")
        return json.loads(done.stdout[done.stdout.index('[{"built"') :])


def document(engine: str, version: str) -> str:
    """The verdicts as TOML: the numbers of stages with which a stage starts, or why it never does."""
    asked = [shape for model in MODELS for shape in shapes(engine, model)]
    lines = [
        f"# What {engine} {version} builds, written by `make engines-build` from the engine's own classes and its",
        "# validation of configurations: attention TP x DP and expert TP x EP of a stage -> the numbers of such stages",
        f"# with which a server of up to {MOST_GPUS} GPUs starts (powers of two), or what is said against the stage.",
        f'version = "{version}"',
    ]
    model, needs = None, list[str]()
    for shape, verdict in zip(asked, build(engine, asked), strict=True):
        if shape["model"] != model:
            model = shape["model"]
            lines += [*needs, "", f'["{model}"]']
            needs = ["", f'["{model}".needs]'] if engine == "sglang" else []
        stages = [int(pp) for pp, said in verdict["stages"].items() if said is None]
        refusal = verdict["built"] or next((said for said in verdict["stages"].values() if said is not None), "")
        value = json.dumps(refusal if verdict["built"] or not stages else stages)
        stage = f"{shape['attn_tp']}x{shape['attn_dp']} {shape['moe_tp']}x{shape['moe_ep']}"
        lines.append(f'"{stage}" = {value}')
        needs += [f'"{stage}" = {json.dumps(words)}'] if (words := verdict.get("needs")) else []
    lines += needs
    return "\n".join(lines) + "\n"


def main() -> None:
    """Every engine, or those that are named."""
    VERDICTS.mkdir(exist_ok=True)
    for engine in sys.argv[1:] or ("vllm", "sglang"):
        version = installed(engine)
        path = VERDICTS / f"{engine}-{version}.toml"
        path.write_text(document(engine, version), encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")  # noqa: T201


if __name__ == "__main__":
    main()
