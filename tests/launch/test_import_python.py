"""`autotune import` of Python files: classes of the engines, Ray's configuration, commands that are started."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.launch.reading.import_plan import import_plan
from costmodel.errors import InputError

VLLM = "from vllm import LLM, EngineArgs\n"
FILES = {
    "a class": (VLLM + 'llm = LLM(model="x/y", tensor_parallel_size=8, max_num_seqs=64)', 8, "vllm:R1/PP1/ATP8"),
    "a package": (
        'import sglang as sgl\ne = sgl.Engine(model_path="Qwen/Qwen3-30B-A3B", tp_size=4, ep_size=4)',
        4, "sglang:R1/PP1/ATP4/ADP1/MTP1/EP4",
    ),
    "classes within": (
        ("from tensorrt_llm import LLM\nfrom tensorrt_llm.llmapi import KvCacheConfig\ndef main():\n"
        '    LLM("Qwen/Qwen3-30B-A3B", tensor_parallel_size=4, moe_expert_parallel_size=2,\n'
        "        kv_cache_config=KvCacheConfig(free_gpu_memory_fraction=0.8))"),
        4, "trtllm:R1/PP1/ATP4/ADP1/MTP2/EP2",
    ),
    "options of the file": (
        VLLM + 'p.add_argument("-t", "--tp-size", default=4)\na = p.parse_args()\n'
        'EngineArgs(model="x/y", tensor_parallel_size=a.tp_size, pipeline_parallel_size=int(os.getenv("PP", 2)))',
        8, "vllm:R1/PP2/ATP4",
    ),
    "a list of words": (
        ('N = 2\ncmd = ["vllm", "serve", "x/y"]\ncmd += ["--enforce-eager" if FAST else "--no-enforce-eager"]\n'
        'cmd += ["-tp", str(N)]\nprint(cmd)\nsubprocess.Popen(" ".join(cmd), shell=True)'),
        2, "vllm:R1/PP1/ATP2",
    ),
    "a text": (
        'm = "x/y"\nos.system(f"python -m sglang.launch_server --model-path {m} --tp {2 * 2} &")',
        4, "sglang:R1/PP1/ATP4",
    ),
    "in a loop": (
        'for i in range(4):\n    subprocess.Popen(["vllm", "serve", "x/y", "-tp", "2", "--port", str(8000 + i)])',
        8, "vllm:R4/PP1/ATP2",
    ),
    "Ray": (
        ("c = LLMConfig(model_loading_config=dict(model_id='x', model_source='x/y'),\n"
        "    deployment_config=dict(autoscaling_config=dict(min_replicas=2)),\n"
        "    engine_kwargs={'tensor_parallel_size': 4, 'pipeline_parallel_size': 2})"),
        16, "vllm:R2/PP2/ATP4",
    ),
}  # fmt: skip
"""What stands in a file, the GPUs and the plan of what it starts."""


@pytest.mark.parametrize("kind", FILES)
def test_a_python_file_is_the_plan_that_it_starts(kind: str, tmp_path: Path) -> None:
    """Without running it: literals, names, defaults, sums and loops over what is known."""
    text, gpus, plan = FILES[kind]
    path = tmp_path / "serve.py"
    path.write_text(text)
    read = import_plan(str(path))
    assert read.gpus == gpus
    assert read.plan.startswith(plan)


def test_what_only_a_run_would_show_is_asked_for(tmp_path: Path) -> None:
    """By its name; given, it counts."""
    path = tmp_path / "serve.py"
    path.write_text(VLLM + 'LLM("x/y", tensor_parallel_size=torch.cuda.device_count())')
    with pytest.raises(InputError, match=r"--var device_count: is required"):
        import_plan(str(path))
    assert import_plan(str(path), given={"device_count": "4"}).gpus == 4


@pytest.mark.parametrize(("text", "why"), [("def (", "must be a Python file"), ("LLM(1)", "it starts none")])
def test_python_that_starts_nothing_is_refused(text: str, why: str, tmp_path: Path) -> None:
    """Text that is no Python, and classes that come from elsewhere."""
    path = tmp_path / "serve.py"
    path.write_text(text)
    with pytest.raises(InputError, match=why):
        import_plan(str(path))


def test_a_chart_that_is_not_rendered_says_how_to_go_on(tmp_path: Path) -> None:
    """Whether or not it happens to be YAML."""
    path = tmp_path / "deployment.yaml"
    for value in ("{{ .Values.tp }}", '"{{ .Values.tp | quote }}"'):
        path.write_text(f"kind: Pod\nspec:\n  containers:\n  - {{name: v, args: [x/y, -tp, {value}]}}\n")
        with pytest.raises(InputError, match="helm template"):
            import_plan(str(path))
