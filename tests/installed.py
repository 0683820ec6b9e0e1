"""`python -m tests.installed`: a wheel in empty environments runs every command, on every Python that can be had.

The commands run outside the repository, with LANG=C, without a terminal and without HOME, on one of the Pythons also
with a HOME that cannot be written. Started by root, they run as `nobody`, who may read all and write nothing but the
working folder. Pythons that uv neither finds nor can fetch are named.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SOURCES = ("autotune", "costmodel", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
NOBODY = 65534
AS_NOBODY = (
    "setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
)  # fmt: skip
"""With the right to read everything: a Python may lie in root's home."""
DIVISION = """
name = "two-models"
engine = "vllm"
[cluster]
gpus = 16
gpu = "h100"
[[models]]
name = "chat"
model = "llama-3.1-8b"
workload = { isl = 1000, osl = 200, request_rate_per_s = 20 }
[[models]]
name = "search"
model = "llama-3.1-8b"
workload = { isl = 4000, osl = 50, request_rate_per_s = 5 }
"""
SURVIVAL = """
name = "a-node-lost"
engine = "vllm"
model = "llama-3.1-8b"
cluster = { gpus = 24, gpu = "h100" }
workload = { isl = 1000, osl = 200, request_rate_per_s = 20 }
constraints = { ttft_ms = 1000, tpot_ms = 40 }
resilience = { survive = "node", k = 1 }
"""
PICKS = """\
model,isl,osl,concurrency,ttft,tpot,tokens/s/gpu,num_total_gpus,tp,pp,dp,moe_tp,moe_ep,backend,system
meta-llama/Llama-3.1-8B,1000,200,16,60,8,900,1,1,1,1,1,1,vllm,h100_sxm
"""
FILES = {"division.toml": DIVISION, "survival.toml": SURVIVAL, "peer/agg/best_config_topn.csv": PICKS}
"""What a person would have written or got from elsewhere."""
QUICK = "--model llama-3.1-8b --gpus 8 --gpu h100 --isl 1000 --osl 200 --tpot 50"
STEPS = f"""
autotune --version
autotune init {QUICK} --baseline TP2 --out study.toml
autotune init
autotune sample traffic --out requests.csv
autotune sample runs --out runs.csv
autotune sample result --out result.json
autotune catalog
autotune schema --format markdown
autotune model llama-3.1-8b --table
autotune space study.toml --table
autotune tune study.toml --table --html tune.html
autotune tune {QUICK} --no-storage --table
autotune tune study.toml --storage journal.log --out out --traffic requests.csv
autotune tune study.toml --no-storage --pareto --jobs 2
autotune study list --storage journal.log
autotune study show $STUDY --storage journal.log
autotune study export $STUDY --storage journal.log --out trials.csv
autotune study delete $STUDY --storage journal.log --yes
autotune evaluate study.toml --plan best --out evaluate.html
autotune evaluate study.toml --table
autotune explain study.toml --against aiconfigurator peer --table
autotune compare study.toml --out compare.html
autotune compare study.toml --traffic requests.csv --table
autotune simulate study.toml --rate 10 --html simulate.html
autotune simulate study.toml --traffic requests.csv --table
autotune traffic requests.csv --study study.toml --plot traffic.svg
autotune retune study.toml --traffic requests.csv --state state --window 1h --metrics retune.prom
autotune retune study.toml --traffic requests.csv --state state2 --window 1h --current TP1 --set constraints.tpot_ms=5
autotune retune accept --state state2
autotune retune history --state state2
autotune retune replay study.toml --traffic requests.csv --step 20m --plot replay.svg --markdown replay.md
autotune schedule study.toml --traffic requests.csv --state state --emit systemd
autotune schedule study.toml --traffic requests.csv --state state --emit cron
autotune schedule study.toml --traffic requests.csv --state state --emit k8s
autotune plan-day study.toml --traffic requests.csv --step 30m --out day --html day.html
autotune divide division.toml --table
autotune survive survival.toml --table
autotune dag study.toml --collapse layer --format dot --out plan.dot
autotune dag study.toml --format chakra --out traces
autotune export study.toml --target vllm --out launch
autotune export study.toml --target k8s --from baseline --out k8s
autotune export study.toml --target compose --out compose
autotune export study.toml --set engine=any --target sglang --top 2 --out sglang
autotune export study.toml --set engine=any --target trtllm --out trtllm
autotune export study.toml --target dynamo --out dynamo
autotune import launch --table
autotune import compose/compose.yaml --study study.toml
autotune verify result.json --study study.toml --plan TP2
autotune calibrate runs.csv --out profile.toml
autotune validate runs.csv --calibration profile.toml --predictions predictions.csv
autotune validate --published
"""
MAY_EXIT = {"evaluate": (0, 3), "simulate": (0, 3)}
"""Exit codes that are answers; of other commands 0 alone."""


def steps() -> list[list[str]]:
    """The command lines without `autotune`, as words."""
    return [shlex.split(line)[1:] for line in STEPS.strip().splitlines()]


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who runs the commands, and where."""

    autotune: Path
    work: Path
    home: Path | None

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """One command, without a terminal."""
        surroundings = {"PATH": "/usr/bin:/bin", "LANG": "C", "LC_ALL": "C"}
        if self.home is not None:
            surroundings["HOME"] = str(self.home)
        other = AS_NOBODY if os.getuid() == 0 else ()
        return subprocess.run(
            [*other, str(self.autotune), *words], cwd=self.work, env=surroundings, stdin=subprocess.DEVNULL,
            capture_output=True, encoding="utf-8", errors="replace", check=False, start_new_session=True,
        )  # fmt: skip


def failures(user: User, label: str) -> int:
    """How many of the commands did not do what they are for."""
    for name, content in FILES.items():
        file = user.work / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    if os.getuid() == 0:
        for path in (user.work, *user.work.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    wrong, study = 0, ""
    start = time.monotonic()
    for words in steps():
        done = user.run([study if word == "$STUDY" else word for word in words])
        if words[:2] == ["study", "list"] and '"name": "' in done.stdout:
            study = done.stdout.partition('"name": "')[2].partition('"')[0]
        bad = done.returncode not in MAY_EXIT.get(words[0], (0,)) or "Traceback" in done.stderr
        if bad:
            wrong += 1
            click.echo(f"wrong {label}: autotune {shlex.join(words)}: exit {done.returncode}\n{done.stderr[-1500:]}")
    click.echo(f"{len(steps()) - wrong} of {len(steps())} right, {time.monotonic() - start:.0f} s: {label}")
    return wrong


def _uv(*words: str) -> subprocess.CompletedProcess[str]:
    # what lies on PYTHONPATH would count as installed
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    uv = Path(sys.executable).with_name("uv")
    return subprocess.run([str(uv), *words], env=env, capture_output=True, text=True, check=False)


def _built(folder: Path) -> Path:
    """The wheel, built from the source distribution."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    built = _uv("build", "--quiet", str(source), "--out-dir", str(folder / "dist"))
    if built.returncode:
        raise SystemExit(built.stderr)
    return next((folder / "dist").glob("*.whl"))


def _python(version: str) -> str | None:
    """Where a Python of that version is: uv's, or pyenv's, whose commands in PATH uv stumbles over."""
    versions = Path(os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))) / "versions"
    for python in sorted(versions.glob(f"{version}.*/bin/python{version}")):
        return str(python)
    for words in (("find", "--system"), ("install", "--quiet"), ("find", "--system")):
        found = _uv("python", *words, version)
        if words[0] == "find" and found.returncode == 0:
            return found.stdout.strip()
    return None


def _environment(folder: Path, version: str, wheel: Path) -> Path | None:
    """The command in an empty environment with the wheel and what it needs; None: no such Python."""
    python = _python(version)
    if python is None:
        return None
    place = folder / f"environment{version}"
    for words in (
        ("venv", "--quiet", "--python", python, str(place)),
        ("pip", "install", "--quiet", "--python", str(place), "--only-binary", ":all:", str(wheel)),
    ):
        done = _uv(*words)
        if done.returncode:
            raise SystemExit(f"Python {version}: {done.stderr}")
    return place / "bin" / "autotune"


def main() -> int:
    """0 where every command ran on every Python that could be had."""
    parser = argparse.ArgumentParser(prog="python -m tests.installed")
    parser.add_argument("--pythons", nargs="*", default=PYTHONS)
    given = parser.parse_args()
    wrong, missing, home_tried = 0, [], False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        wheel = _built(folder)
        readonly = folder / "home"
        readonly.mkdir(mode=0o555)
        for version in given.pythons:
            autotune = _environment(folder, version, wheel)
            if autotune is None:
                missing.append(version)
                continue
            ways = {"without HOME": None} | ({} if home_tried else {"with a HOME that cannot be written": readonly})
            home_tried = True
            for label, home in ways.items():
                work = folder / f"work{version}{'' if home is None else '-home'}"
                work.mkdir()
                wrong += failures(User(autotune=autotune, work=work, home=home), f"Python {version} {label}")
    click.echo(f"{wrong} wrong" + (f"; no Python {', '.join(missing)} to be had here" if missing else ""))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
