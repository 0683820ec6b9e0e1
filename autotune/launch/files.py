"""The folder that an export writes: whole or not at all, and nothing outside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from costmodel.errors import InputError
from costmodel.files import read_file

MARK = "plan.json"
MAX_MARK_BYTES = 10_000_000
WRITTEN_BY = "autotune export"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutFile:
    """One file to be written."""

    text: str
    executable: bool = False


def write_folder(folder: Path, files: Mapping[str, OutFile]) -> None:
    """Write all files into `folder`, which appears whole or stays as it was.

    Raises:
        InputError: the folder holds something that no export wrote, a name is not a plain one, or it cannot be written.
    """
    for name in files:
        if not _NAME.match(name) or ".." in name:
            raise InputError.single(str(folder), f"holds plain file names only, got {name!r}")
    target = Path(os.path.abspath(folder))
    _check_replaceable(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:80]}."))
    except OSError as error:
        raise InputError.single(str(folder), f"cannot be written: {error.strerror}") from error
    try:
        _fill(made, files)
        _swap(made, target)
    except OSError as error:
        raise InputError.single(str(folder), f"cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _fill(folder: Path, files: Mapping[str, OutFile]) -> None:
    for name, file in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(file.text, encoding="utf-8", newline="")
        path.chmod(0o755 if file.executable else 0o644)
    folder.chmod(0o755)


def _swap(made: Path, target: Path) -> None:
    """Put the new folder where the old one is."""
    if not target.exists():
        made.rename(target)
        return
    old = made.with_name(made.name + ".old")
    target.rename(old)
    try:
        made.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(target: Path) -> None:
    try:
        if target.is_symlink():
            raise InputError.single(str(target), "must be a folder of its own, is a symbolic link")
        if not target.exists():
            return
        if not target.is_dir():
            raise InputError.single(str(target), "must be a folder, is a file")
        if any(target.iterdir()) and not is_export(target):
            raise InputError.single(
                str(target), "must be new, empty, or written by an earlier export: it holds other files"
            )
    except OSError as error:
        raise InputError.single(str(target), f"cannot be written: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise InputError.single(repr(str(target)), f"is not a folder name: {error}") from error


def is_export(folder: Path) -> bool:
    """Whether an export wrote this folder."""
    try:
        document = json.loads(read_file(folder / MARK, MAX_MARK_BYTES))
    except (ValueError, RecursionError):  # an InputError is a ValueError
        return False
    return isinstance(document, dict) and document.get("written_by") == WRITTEN_BY
