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
from itertools import groupby
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


def build(engine: str, asked: Sequence[Shape]) -> Iterator[dict[str, Any]]:
    """The engine's verdict on each shape, as `build_vllm` has it."""
    with tempfile.TemporaryDirectory() as folder:
        models = {}
        for number, (model, file) in enumerate(MODELS.items()):
            whole, short = Path(folder) / f"whole{number}", Path(folder) / f"short{number}"
            layers = write_config(whole, file)
            write_config(short, file, one_of_each=True)
            models[model] = {"whole": str(whole), "short": str(short), "layers": layers}
        question = Path(folder) / "asked.json"
        question.write_text(json.dumps({"models": models, "shapes": list(asked)}), encoding="utf-8")
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
        script, said = Path(__file__).with_name(f"build_{engine}.py"), Path(folder) / "said"
        with question.open() as given, said.open("w") as log:
            process = subprocess.Popen(  # noqa: S603  # our own script
                [PYTHON, script], stdin=given, stdout=subprocess.PIPE, stderr=log, text=True, env=env, cwd=folder
            )
            assert process.stdout is not None  # noqa: S101  # a pipe was asked for
            yield from (json.loads(line) for line in process.stdout if line.startswith('{"built"'))
        if process.wait():
            raise RuntimeError(f"{engine} could not be run: {said.read_text()[-2000:]}")


def section(model: str, verdicts: Sequence[tuple[Shape, dict[str, Any]]]) -> list[str]:
    """A model's verdicts as TOML, and what stages took to be built."""
    lines, needs = ["", f'["{model}"]'], list[str]()
    for shape, verdict in verdicts:
        stages = [int(pp) for pp, said in verdict["stages"].items() if said is None]
        refusal = verdict["built"] or next((said for said in verdict["stages"].values() if said is not None), "")
        value = json.dumps(refusal if verdict["built"] or not stages else stages)
        stage = f"{shape['attn_tp']}x{shape['attn_dp']} {shape['moe_tp']}x{shape['moe_ep']}"
        lines.append(f'"{stage}" = {value}')
        needs += [f'"{stage}" = {json.dumps(words)}'] if (words := verdict.get("needs")) else []
    return [*lines, *(["", f'["{model}".needs]', *needs] if needs else [])]


def write(engine: str, version: str, path: Path) -> None:
    """The file of an engine, model by model: the numbers of stages with which a stage starts, or why it never does."""
    asked = [shape for model in MODELS for shape in shapes(engine, model)]
    lines = [
        f"# What {engine} {version} builds, written by `make engines-build` from the engine's own classes and its",
        "# validation of configurations: attention TP x DP and expert TP x EP of a stage -> the numbers of such stages",
        f"# with which a server of up to {MOST_GPUS} GPUs starts (powers of two), or what is said against the stage.",
        f'version = "{version}"',
    ]
    pairs = zip(asked, build(engine, asked), strict=True)
    for model, of_model in groupby(pairs, key=lambda pair: str(pair[0]["model"])):
        lines += section(model, list(of_model))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Every engine, or those that are named."""
    VERDICTS.mkdir(exist_ok=True)
    for engine in sys.argv[1:] or ("vllm", "sglang"):
        version = installed(engine)
        path = VERDICTS / f"{engine}-{version}.toml"
        write(engine, version, path)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")  # noqa: T201


if __name__ == "__main__":
    main()
