"""What stands around a server: the nodes it lies on, the names of its metrics, and its router."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from autotune.engines.command_line import Arg
from autotune.engines.options import OptionList, option_list, versions


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaNodes:
    """Where one replica lies: some GPUs of one node, or all GPUs of several."""

    nodes: tuple[int, ...]
    """Numbers of the nodes; the first is the replica's head."""
    gpus: tuple[int, ...]
    """Numbers of its GPUs, the same on each node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMetrics:
    """Names of what a program counts for Prometheus; several are those of its versions, of which a server has one."""

    title: str
    """Of the program."""
    prompt: tuple[str, ...] = ()
    """Histograms of requests by prompt tokens; empty: there is none."""
    output: tuple[str, ...] = ()
    """Histograms of requests by output tokens; empty: there is none."""
    prompt_labels: tuple[tuple[str, str], ...] = ()
    """Labels of the series in question, where one histogram counts prompts and outputs."""
    output_labels: tuple[tuple[str, str], ...] = ()
    prompt_total: tuple[str, ...] = ()
    """Counters of prompt tokens, which give their mean where there is no histogram."""
    output_total: tuple[str, ...] = ()
    requests_total: tuple[str, ...] = ()
    """Counters of requests that were served."""
    ttft_s: tuple[str, ...] = ()
    """Histogram of requests by time to first token."""
    cache_hits: tuple[str, ...] = ()
    """Prompt tokens found in the prefix cache."""
    cache_queries: tuple[str, ...] = ()
    """Prompt tokens looked for in the prefix cache."""


class Router(ABC):
    """A program of an engine's makers that spreads requests over replicas."""

    program: ClassVar[str]
    """Name of its lists of options, of which it is started by the newest."""
    port: ClassVar[int]
    live_path: ClassVar[str]
    """Answers 200 while the router runs."""
    ready_path: ClassVar[str]
    """Answers 200 when it has a server to send requests to."""

    def options(self) -> OptionList:
        """Its newest options."""
        return option_list(self.program, versions(self.program)[0])

    @abstractmethod
    def command(self, hosts: Sequence[Arg], start_s: int) -> tuple[Arg, ...]:
        """What starts it over servers at these addresses, for which it waits as long as they may take to start."""

    @abstractmethod
    def discovering_command(self, selector: Sequence[str], server_port: int, namespace: str) -> tuple[Arg, ...]:
        """What starts it on Kubernetes, where it finds servers by labels (`name=value`)."""
