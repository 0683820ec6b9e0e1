"""Processes as servers: how many they are, and which prefill or decode, by options, names or a proxy's addresses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from autotune.engines.option_reader import Command
from autotune.launch.reading.containers import ROLES, Place
from autotune.launch.reading.shell import read_script, without_comments
from autotune.launch.reading.variables import expand

_FLAG = re.compile(
    r"--(?P<role>prefill|decode)(?:e?r)?(?:[-_](?P<kind>host|port|url|server|instance|address)(?:e?s)?)?(?:=(?P<value>.+))?"
)
_ADDRESS = re.compile(r"(?:\w+://)?(?P<host>[^:/]+)(?::(?P<port>\d{1,5}))?(?:/.*)?")
_HERE = frozenset(("localhost", "127.0.0.1", "0.0.0.0", "host.docker.internal"))  # noqa: S104  # names, nothing binds
_VALUE = {
    "host": re.compile(r"[\w.${}()][\w.${}()-]*"),
    "port": re.compile(r"\d{1,5}"),
    "address": re.compile(r"[^\s-][^\s]*:[^\s]*"),
}
STORES = ("LMCache", "Offload", "Example", "SharedStorage", "Store", "FlexKV")
"""Parts of the names of connectors that keep caches for a server's own use as well: `kv_both` says nothing of roles."""
LONGEST_LIST = 1_000
"""Addresses that are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Processes that one command starts."""

    command: Command
    place: Place = field(default_factory=Place)

    def saying(self, before: Sequence[str] = (), after: Sequence[str] = ()) -> Process:
        """The same with more assumptions, before and after those of its command."""
        said = (*before, *self.command.assumptions, *after)
        return replace(self, command=replace(self.command, assumptions=said))


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a proxy finds a server."""

    role: str
    host: str | None
    """None: that of the proxy, or not known."""
    port: int | None


def role_of(process: Process) -> str | None:
    """`prefill` or `decode`, as the options of a disaggregated server say, or its name where it passes caches on."""
    values = process.command.values
    mode = str(values.get("disaggregation_mode", ""))
    if mode in ROLES:
        return mode
    given = " ".join(process.command.own)
    for role in ROLES:
        if re.search(rf"--is-{role}-worker|--disaggregation-mode[ =]{role}", given):
            return role
    try:
        transfer = json.loads(str(values.get("kv_transfer_config", "{}")))
    except (ValueError, RecursionError):
        transfer = {}
    named = {"kv_producer": "prefill", "kv_consumer": "decode"}
    if isinstance(transfer, dict) and str(transfer.get("kv_role")) in named:
        return named[str(transfer["kv_role"])]
    return process.place.role


def servers_of(process: Process, gpus: int = 1) -> int:
    """Servers that a process and its copies are: where copies are nodes or ranks of one server, fewer than those.

    `gpus`: of one server, where they are known. More than a copy has make several copies its nodes.
    """
    place, values = process.place, process.command.values
    if place.grouped or place.copies < 2:
        return place.copies
    nodes = str(values.get("nnodes", ""))
    each = int(nodes) if nodes.isdecimal() and len(nodes) < 6 else 1
    if each <= 1:
        whole, local = (str(values.get(f"data_parallel_size{part}", "")) for part in ("", "_local"))
        both = whole.isdecimal() and local.isdecimal() and 0 < int(local[:6]) < int(whole[:6])
        each = int(whole[:6]) // int(local[:6]) if both else 1
    if each <= 1 and place.gpus is not None and gpus > place.gpus:
        each = -(-gpus // place.gpus)
    return place.copies // each if each > 1 and place.copies % each == 0 else place.copies


def with_proxied_roles(processes: Sequence[Process], texts: Iterable[str], given: Mapping[str, str]) -> list[Process]:
    """Processes with the roles that the proxies in `texts` say, by `--prefiller-ports 8100 --decoder-ports 8200`.

    Lists of `--prefill HOST:PORT --decode HOST:PORT`, with and without `http://`, say the same. An address is
    that of a server if it has its port and, where both say one, its name. A server at addresses of both roles keeps the
    role that it has.
    """
    addresses = list(dict.fromkeys(a for text in texts for a in addresses_of(text, given)))[:LONGEST_LIST]
    if {a.role for a in addresses} != set(ROLES):
        return list(processes)
    return [_with_role(process, addresses) for process in processes]


def addresses_of(text: str, given: Mapping[str, str]) -> list[Address]:
    """What a text tells a proxy of where servers are; variables are those at the end of a script, and `given`."""
    if _FLAG.search(text) is None:
        return []
    found: dict[tuple[str, str], list[str]] = {}
    for role, kind, value in _values(expand(without_comments(text), read_script(text, given).env)):
        found.setdefault((role, kind), []).append(value)
    out = []
    for role in ROLES:
        hosts, ports = found.get((role, "host"), []), found.get((role, "port"), [])
        for i in range(max(len(hosts), len(ports))):
            host = hosts[i] if i < len(hosts) else None
            out.append(Address(role=role, host=host, port=int(ports[i]) if i < len(ports) else None))
        for (of, kind), values in found.items():
            read = [_ADDRESS.fullmatch(v) for v in values] if of == role and kind not in ("host", "port") else []
            out += [Address(role=role, host=m["host"], port=int(m["port"] or 0) or None) for m in read if m is not None]
    return out


def _values(text: str) -> Iterator[tuple[str, str, str]]:
    """Role, kind of value (`host`, `port`, ...) and value, of every flag that names addresses.

    A command ends with its line, which goes on behind a backslash and with the next item of a list of YAML or JSON.
    """
    for line in re.sub(r"\\\n|\n(?=[ \t]*(?:- |[\"'\]]))", " ", text).split("\n"):
        role = kind = ""
        for word in re.findall(r"[^\s\"'\[\],]+", line):
            flag = _FLAG.fullmatch(word)
            if flag is not None:
                role, kind = flag["role"], flag["kind"] or "address"
            value = word.rstrip(";&") if flag is None else flag["value"]
            if value is not None and value != "-":
                if role and _VALUE[kind if kind in _VALUE else "address"].fullmatch(value):
                    yield role, kind, value
                elif not (value.isdecimal() or value.lower() == "none"):  # SGLang's bootstrap port, behind an address
                    role = ""
            if word.endswith((";", "&", "|")):
                role = ""


def _with_role(process: Process, addresses: Sequence[Address]) -> Process:
    roles = {a.role for a in addresses if _is_at(process, a)}
    return replace(process, place=replace(process.place, role=roles.pop())) if len(roles) == 1 else process


def _is_at(process: Process, address: Address) -> bool:
    command, place = process.command, process.place
    if address.port is not None:
        port = command.values.get("port", command.options.default("port", gpu_gib=0.0, gpu_name="", backend=None))
        if str(address.port) not in (str(port), *map(str, place.ports)):
            return False
    host = (address.host or "").partition(".")[0]
    of_its_own = host and address.host not in _HERE and not host.isdecimal() and "$" not in host
    return host in place.names if of_its_own and place.names else address.port is not None


def roles_unknown(processes: Sequence[Process]) -> str | None:
    """What is to be said of servers that hand caches to each other while nothing says in which role; None: nothing."""
    named = sorted({name for p in processes if role_of(p) is None and (name := _both_ways(p)) is not None})
    if not named:
        return None
    return (
        f"which servers prefill and which decode is not known: by {', '.join(named)} they hand caches on in either "
        "role (kv_both), and no proxy's command, name or label says which"
    )


def _both_ways(process: Process) -> str | None:
    """The connector of a server that hands caches on in either role; None: it has none."""
    try:
        given = json.loads(str(process.command.values.get("kv_transfer_config", "{}")))
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict) or given.get("kv_role") != "kv_both":
        return None
    more = given.get("kv_connector_extra_config")
    several = more.get("connectors") if isinstance(more, dict) else None
    inner = [c for c in several if isinstance(c, dict)] if isinstance(several, list) else []
    names = [str(c.get("kv_connector")) for c in inner or [given]]
    return next((name for name in names if not any(part in name for part in STORES)), None)
