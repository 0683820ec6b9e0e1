"""Which servers prefill and which decode: by proxies, by names of containers, or not known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from autotune.launch.reading.import_plan import import_plan
from autotune.launch.reading.roles import Address, addresses_of
from costmodel.errors import InputError

BOTH = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}
MODEL = "meta-llama/Llama-3.1-70B-Instruct"
PREFILL, DECODE = "prefill", "decode"


def serve(port: str, tp: int, more: str = "", transfer: dict[str, object] | None = None) -> str:
    """A line that starts a server which hands caches on."""
    return f"vllm serve {MODEL} --port {port} -tp {tp} {more} --kv-transfer-config '{json.dumps(transfer or BOTH)}' &"


TWO = f"{serve('8100', 2)}\n{serve('8200', 4)}\n"
POOLS = (6, "vllm:P2:R1/PP1/ATP2/ADP1/MTP1/EP1+D4:R1/PP1/ATP4/ADP1/MTP1/EP1")


def plan(tmp_path: Path, text: str, name: str = "start.sh") -> tuple[int, str]:
    """GPUs and plan string of a source."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    found = import_plan(str(path))
    return found.gpus, found.plan


@pytest.mark.parametrize(
    "proxy",
    [
        "toy_proxy_server.py --prefiller-hosts localhost --prefiller-ports 8100 --decoder-hosts h --decoder-ports 8200",
        "python3 proxy.py --model m --prefill localhost:8100 \\\n  --decode localhost:8200 --port 8000",
        "vllm-router --prefill http://127.0.0.1:8100 --decode http://127.0.0.1:8200/ --port 30001",
        "router --prefill http://10.0.0.1:8100 8998 --decode=http://10.0.0.1:8200",
        "P=(8100)\nD=8200\nproxy --prefiller-port ${P[@]} --decoder-port=$D & echo 8100",
    ],
)
def test_a_proxy_says_the_roles_of_ports(proxy: str, tmp_path: Path) -> None:
    """Servers that pass caches either way are what the proxy in front of them is told that they are."""
    assert plan(tmp_path, TWO + proxy) == POOLS


def test_the_second_server_may_prefill(tmp_path: Path) -> None:
    """The second server of a file prefills where the proxy says so."""
    proxy = "proxy --prefill localhost:8200 --decode localhost:8100"
    assert plan(tmp_path, TWO + proxy) == (6, "vllm:P4:R1/PP1/ATP4/ADP1/MTP1/EP1+D2:R1/PP1/ATP2/ADP1/MTP1/EP1")


def test_services_of_compose_are_known_by_their_names(tmp_path: Path) -> None:
    """With all servers on one port the proxy's hosts say which is which."""
    image = "vllm/vllm-openai:v0.30.0"

    def service(tp: int) -> dict[str, object]:
        command = ["--model", MODEL, "-tp", str(tp), "--kv-transfer-config", json.dumps(BOTH)]
        return {"image": image, "command": command}

    proxy = ["toy.py", "--prefiller-hosts", "two", "--prefiller-ports", "8000", "--decoder-hosts", "one"]
    document = {
        "services": {
            "one": service(4),
            "two": service(2),
            "front": {"image": "python", "command": [*proxy, "--decoder-ports", "8000"]},
        }
    }
    assert plan(tmp_path, yaml.safe_dump(document), "compose.yaml") == POOLS


@pytest.mark.parametrize("said", ["-p {port}:8000", "--name llm-{role}"])
def test_containers_of_a_script_have_names_and_ports(said: str, tmp_path: Path) -> None:
    """`docker run` publishes a port that the proxy knows, or gives a name that says the role."""
    lines = [
        f"docker run {said.format(port=port, role=role)} vllm/vllm-openai:v0.30.0 --model {MODEL} -tp {tp} "
        f"--kv-transfer-config '{json.dumps(BOTH)}'"
        for port, role, tp in ((8100, PREFILL, 2), (8200, DECODE, 4))
    ]
    proxy = "" if "name" in said else "proxy --prefill localhost:8100 --decode localhost:8200"
    assert plan(tmp_path, "\n".join([*lines, proxy])) == POOLS


def test_two_containers_of_a_pod_have_roles_by_their_names(tmp_path: Path) -> None:
    """Names of containers say roles as those of Deployments and services do."""
    containers = [
        {"name": name, "image": "vllm/vllm-openai:v0.30.0", "command": serve("8000", tp)[:-2].split()}
        for name, tp in ((PREFILL, 2), (DECODE, 4))
    ]
    for container in containers:
        container["command"] = ["sh", "-c", " ".join(container["command"])]
    spec = {"replicas": 1, "template": {"spec": {"containers": containers}}}
    document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "llm"}, "spec": spec}
    assert plan(tmp_path, yaml.safe_dump(document), "deployment.yaml") == POOLS


EQUAL = f"{serve('8100', 2)}\n{serve('8200', 2)}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (EQUAL, True),
        (EQUAL + "proxy --prefill $A:8100 --decode $B:8100", True),
        (EQUAL.replace("NixlConnector", "OffloadingConnector"), False),
        (EQUAL.replace("kv_both", "kv_producer"), False),
        (EQUAL + "proxy --prefill localhost:8100 --decode localhost:8200", False),
    ],
)
def test_roles_that_nothing_says_are_said_to_be_unknown(text: str, said: bool, tmp_path: Path) -> None:
    """Servers that hand caches on either way are no silent replicas; those that keep them for themselves are."""
    path = tmp_path / "start.sh"
    path.write_text(text, encoding="utf-8")
    found = import_plan(str(path))
    assert any("kv_both" in text for text in found.assumptions) is said


def test_servers_that_differ_may_be_two_pools(tmp_path: Path) -> None:
    """The error that they are no copies says that nothing tells their roles."""
    with pytest.raises(InputError, match=r"copies of one plan.*tensor_parallel_size 2 and 4.*NixlConnector"):
        plan(tmp_path, TWO)


@pytest.mark.parametrize(
    ("prefill", "decode", "taken"),
    [
        ("", "--kv-cache-dtype fp8", "fp8"),
        ("--kv-cache-dtype fp8", "", None),
        ("--kv-cache-dtype fp8", "--kv-cache-dtype fp8", "fp8"),
    ],
)
def test_one_cache_dtype_is_taken_for_both(prefill: str, decode: str, taken: str | None, tmp_path: Path) -> None:
    """Where pools have two it is decode's, and that is said."""
    path = tmp_path / "start.sh"
    proxy = "proxy --prefill localhost:8100 --decode localhost:8200"
    path.write_text(f"{serve('8100', 2, prefill)}\n{serve('8200', 2, decode)}\n{proxy}", encoding="utf-8")
    found = import_plan(str(path))
    assert found.baseline().kv_dtype == taken
    assert any("is taken for both" in text for text in found.assumptions) is (prefill != decode)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x --prefill-policy random --decode-log-interval 40", []),
        ("x --prefiller-hosts a b --prefiller-ports 1 2\nvllm serve c", [(PREFILL, "a", 1), (PREFILL, "b", 2)]),
        ('["--decode", "http://d.ns.svc:80/v1"]', [(DECODE, "d.ns.svc", 80)]),
        ("- --decoder-ports\n- '7'\n- --port\n- '9'", [(DECODE, None, 7)]),
        ("x --prefill $HOST:$PORT # --prefill a:1", []),
        ("x --prefiller-ports 8100 8101; y 8102", [(PREFILL, None, 8100), (PREFILL, None, 8101)]),
    ],
)
def test_addresses_of_a_proxy(text: str, found: list[tuple[str, str | None, int]]) -> None:
    """Lists end with the command; what is no address is none."""
    assert addresses_of(text, {}) == [Address(role=role, host=host, port=port) for role, host, port in found]
