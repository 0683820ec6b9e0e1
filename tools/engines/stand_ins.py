"""Stand-ins for modules of an engine that need a GPU or a compiler: they import, and hold anything.

What is checked, parsing and validating options, calls none of them; were one called, its answer would be a mock, which
no check of a number or a name takes for right.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from unittest.mock import MagicMock


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(
        self, fullname: str, _path: object = None, _target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec for the modules stood in for and all below them."""
        stood = any(fullname == name or fullname.startswith(f"{name}.") for name in self.names)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if stood else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """A module whose every attribute is a mock."""
        module = MagicMock(name=spec.name)
        module.__name__, module.__path__, module.__version__, module.__file__ = spec.name, [], "3.7.0", spec.name
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def first_line(raised: BaseException) -> str:
    """What an exception says, in its first line that says something: pydantic's own come before it."""
    lines = [line.strip() for line in str(raised).splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith(("Value error, ", "Assertion failed, "))), None)
    if said is not None:
        return said.partition(", ")[2].partition(" [type=")[0]
    if not lines:  # an assertion without a message: its line
        lines = [traceback.extract_tb(raised.__traceback__)[-1].line or ""]
    return f"{type(raised).__name__}: {lines[0]}"[:200]


def stand_in(*names: str) -> None:
    """Modules of these names, and those below them, are mocks from here on."""
    sys.meta_path.insert(0, _Finder(names))


class ProcessGroup:
    """What a model's class asks of PyTorch's group: how many ranks, and which this is."""

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks

    def size(self) -> int:
        """Ranks of the group."""
        return self._ranks

    def rank(self) -> int:
        """This rank: the first."""
        return 0


class Group:
    """What a model's class asks of an engine's group of ranks, seen from its first rank."""

    rank = rank_in_group = local_rank = first_rank = 0
    is_first_rank = True
    is_last_rank = True
    """So that one stage is built with embeddings and head."""
    device_communicator = mq_broadcaster = None
    use_device_communicator = False

    def __init__(self, ranks: int, name: str) -> None:
        self.world_size, self.unique_name = ranks, name
        self.ranks, self.last_rank = list(range(ranks)), ranks - 1
        self.device_group = self.cpu_group = ProcessGroup(ranks)
