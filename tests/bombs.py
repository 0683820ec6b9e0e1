"""`python -m tests.bombs`: small or endless files that are made to take time and memory, one command each, measured.

A command may take two seconds of CPU more than one that reads a file of a hundred requests, and 1 GB.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

CPU_S, MEMORY_MB = 2.0, 1024
MEBIBYTE = 1 << 20
STUDY = "init.toml"
SERIES = 1_000_000
DEPTH = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bomb:
    """A file, and the command that reads it."""

    what: str
    name: str
    write: Callable[[Path], None]
    command: str
    """With `FILE` for the file."""


def _repeated(piece: bytes, times: int, *, packed: bool = False) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with gzip.open(path, "wb", 1) if packed else path.open("wb") as file:
            for _ in range(times):
                file.write(piece)

    return write


def _text(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text, encoding="utf-8") and None


def _series(path: Path) -> None:
    name = "vllm:prompt_tokens_total"
    with path.open("w", encoding="utf-8") as file:
        file.write(f"# TYPE {name} counter\n")
        file.writelines(f'{name}{{model_name="m",pod="{i}"}} {i}\n' for i in range(SERIES))


def _samples(path: Path) -> None:
    series = [{"metric": {"__name__": "x", "pod": str(i)}, "values": [[1.7e9, "1"]]} for i in range(SERIES // 4)]
    path.write_text(json.dumps({"status": "success", "data": {"resultType": "matrix", "result": series}}))


def _aliases() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(lines) + "\n"


DEEP = "[" * DEPTH + "]" * DEPTH
RUNS = "gpu,engine,model,isl,osl,concurrency,attn_tp,ttft_ms,tpot_ms\n"
BOMBS = (
    Bomb(
        what="gzip: 1 GB of line ends",
        name="a.csv.gz",
        write=_repeated(b"\n" * MEBIBYTE, 1024, packed=True),
        command="traffic FILE",
    ),
    Bomb(
        what="gzip: one line of 1 GB",
        name="b.csv.gz",
        write=_repeated(b"a" * MEBIBYTE, 1024, packed=True),
        command="traffic FILE",
    ),
    Bomb(what="a line of 1 GB", name="c.csv", write=_repeated(b"a" * MEBIBYTE, 1024), command="traffic FILE"),
    Bomb(
        what="a line of 1 GB in JSON", name="d.jsonl", write=_repeated(b'{"a":' * 209_715, 1024), command="traffic FILE"
    ),
    Bomb(what="metrics of a million series", name="e.prom", write=_series, command="traffic FILE"),
    Bomb(what="an answer of 250,000 series", name="f.json", write=_samples, command="traffic FILE"),
    Bomb(what="deep JSON as a log", name="g.json", write=_text(DEEP), command="traffic FILE"),
    Bomb(what="deep JSON as a model", name="config.json", write=_text(DEEP), command="model FILE"),
    Bomb(what="deep JSON as a result", name="h.json", write=_text(DEEP), command=f"verify FILE --study {STUDY}"),
    Bomb(what="deep JSON as a deployment", name="i.json", write=_text(DEEP), command="import FILE"),
    Bomb(
        what="deep JSON in a ledger",
        name="state/ledger.jsonl",
        write=_text(DEEP + "\n"),
        command="retune history --state state",
    ),
    Bomb(what="YAML aliases as a deployment", name="j.yaml", write=_text(_aliases()), command="import FILE"),
    Bomb(
        what="YAML aliases as a result", name="k.yaml", write=_text(_aliases()), command=f"verify FILE --study {STUDY}"
    ),
    Bomb(what="deep TOML", name="l.toml", write=_text("a = " + DEEP), command="tune FILE --no-storage"),
    Bomb(
        what="a key of 20,000 parts",
        name="m.toml",
        write=_text("a" + ".a" * 20_000 + " = 1"),
        command="tune FILE --no-storage",
    ),
    Bomb(
        what="30,000 measured runs",
        name="n.csv",
        write=_text(RUNS + "h100_sxm,vllm,llama-3.1-70b,1024,1024,4,8,70,9\n" * 30_000),
        command="validate FILE",
    ),
    Bomb(
        what="a file without end", name="o.csv", write=lambda path: path.symlink_to("/dev/zero"), command="traffic FILE"
    ),
)


def taken(command: str, folder: Path) -> tuple[int, float, float, str]:
    """Exit code, seconds of CPU, MB at most, and the last line on stderr."""
    errors = folder / "stderr"
    with errors.open("wb") as said:
        child = subprocess.Popen(
            [sys.executable, "-m", "autotune", *command.split()], cwd=folder, stdout=subprocess.DEVNULL, stderr=said
        )
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    text = errors.read_text(encoding="utf-8", errors="replace").strip()
    return child.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, text.rpartition("\n")[2]


def main() -> int:
    """0 where every command ended with a message within its bounds."""
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "state").mkdir()
        plain = "arrived_at,isl,osl\n" + "".join(f"{1.7e9 + i},100,10\n" for i in range(100))
        (folder / "plain.csv").write_text(plain, encoding="utf-8")
        taken(f"init --out {STUDY}", folder)
        _, start_s, _, _ = taken("traffic plain.csv", folder)
        click.echo(
            f"| input | exit code | CPU seconds beyond {start_s:.1f} of start | MB | message |\n|---|---|---|---|---|"
        )
        for bomb in BOMBS:
            file = folder / bomb.name
            bomb.write(file)
            code, cpu_s, memory_mb, said = taken(bomb.command.replace("FILE", bomb.name), folder)
            file.unlink()
            more_s = max(cpu_s - start_s, 0.0)
            bad = code not in (0, 2, 4) or more_s > CPU_S or memory_mb > MEMORY_MB or len(said) > 3_000
            wrong += bad
            cells = (bomb.what, str(code), f"{more_s:.1f}", f"{memory_mb:.0f}", said[:90].replace("|", "/"))
            click.echo(f"| {' | '.join(cells)} |" + (" beyond its bounds" if bad else ""))
    click.echo(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
