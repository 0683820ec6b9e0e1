"""Passwords and tokens of addresses: used, and never told."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.traffic.address import AUTHORIZATION, holds_secret, shown_source
from autotune.traffic.read import read_traffic
from costmodel.errors import InputError

SECRET = "s3cr3t-Pa55"  # noqa: S105  # made up
STUDY = "studies/llama-70b-16xh100.toml"


class Server:
    """Serves a small log, or a status, and remembers what it was asked with."""

    def __init__(self) -> None:
        self.status, self.asked = 200, list[tuple[str, str | None]]()
        rows = (f"{1.5e9 + k / 10:.1f},{1000 + k % 9},{200 + k % 7}" for k in range(3000))
        self.content = "\n".join(["timestamp,prompt_tokens,completion_tokens", *rows]).encode() + b"\n"


@pytest.fixture
def server() -> Iterator[tuple[Server, int]]:
    """A server and its port."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the base class calls it so
            state.asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(state.status)
            self.end_headers()
            self.wfile.write(state.content)

        def log_message(self, *args: Any) -> None:
            """Silent."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=http.serve_forever, daemon=True).start()
    yield state, http.server_port
    http.shutdown()
    http.server_close()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"http://u:{SECRET}@h:9090/a?query=x", "http://h:9090/a?query=x"),
        (f"http://h/a?query=up&token={SECRET}&step=5", "http://h/a?query=up&token=***&step=5"),
        (f"http://h/a?{SECRET}", "http://h/a?***"),
        (f"http://h/a#{SECRET}", "http://h/a#***"),
        (f"http://[::1/{SECRET}", "http://***"),
        ("logs/requests.csv", "logs/requests.csv"),
    ],
)
def test_what_is_told_of_an_address(address: str, shown: str) -> None:
    """Host, path and the query itself; no user, no password, no other parameter's value."""
    assert shown_source(address) == shown


def test_an_address_with_a_password_authenticates(server: tuple[Server, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """As HTTP has it, and the environment's where the address holds none."""
    state, port = server
    log = read_traffic(f"http://me:{SECRET}@127.0.0.1:{port}/log?token={SECRET}")
    assert state.asked[-1] == (f"/log?token={SECRET}", "Basic " + b64encode(f"me:{SECRET}".encode()).decode())
    assert SECRET not in str(log.to_json())
    monkeypatch.setenv(AUTHORIZATION, f"Bearer {SECRET}")
    read_traffic(f"http://127.0.0.1:{port}/log")
    assert state.asked[-1][1] == f"Bearer {SECRET}"
    monkeypatch.setenv(AUTHORIZATION, "two\nlines")
    with pytest.raises(InputError, match="must be printable ASCII"):
        read_traffic(f"http://127.0.0.1:{port}/log")


@pytest.mark.parametrize("kind", ["served", "forbidden", "nobody", "malformed", "not HTTP"])
def test_no_secret_in_output_ledger_or_errors(server: tuple[Server, int], tmp_path: Path, kind: str) -> None:
    """Whatever becomes of the request."""
    state, port = server
    state.status = 403 if kind == "forbidden" else 200
    host = {"nobody": "127.0.0.1:9", "malformed": "[::1"}.get(kind, f"127.0.0.1:{port}")
    scheme = "ftp" if kind == "not HTTP" else "http"
    address = f"{scheme}://me:{SECRET}@{host}/log?query=x&token={SECRET}"
    arguments = [
        "retune",
        STUDY,
        "--traffic",
        address,
        "--state",
        str(tmp_path / "s"),
        "--window",
        "5m",
        "--timeout",
        "2s",
    ]
    for output in ("--json", "--table"):
        done = CliRunner().invoke(cli, [*arguments, output])
        assert done.exception is None or isinstance(done.exception, (InputError, SystemExit))
        assert SECRET not in f"{done.output}{done.exception}{done.exception!r}"
        assert done.exception is None or SECRET not in str(done.exception.__context__)
    for path in (tmp_path / "s").glob("*"):
        assert SECRET.encode() not in path.read_bytes()
        assert path.name != "ledger.jsonl" or path.stat().st_mode & 0o077 == 0
    assert kind != "served" or (tmp_path / "s" / "ledger.jsonl").exists()


def test_units_hold_no_secret() -> None:
    """`schedule` takes no address with one: a unit and a process list would show it."""
    assert not holds_secret("http://h/api/v1/query_range?query=rate(x[5m])&step=15")
    for address in (f"http://u:{SECRET}@h/", f"http://h/?api_key={SECRET}"):
        done = CliRunner().invoke(cli, ["schedule", STUDY, "--traffic", address, "--state", "s", "--emit", "cron"])
        assert isinstance(done.exception, InputError)
        assert SECRET not in f"{done.output}{done.exception}"
