"""Stand-ins for modules of an engine that need a GPU or a compiler: they import, and hold anything.

What is checked, parsing and validating options, calls none of them; were one called, its answer would be a mock, which
no check of a number or a name takes for right.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
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


def stand_in(*names: str) -> None:
    """Modules of these names, and those below them, are mocks from here on."""
    sys.meta_path.insert(0, _Finder(names))
