"""The folder that an export writes: whole or not at all, and nothing outside it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from autotune import files
from autotune.files import OutFile
from costmodel.errors import InputError
from costmodel.files import read_file

MARK = "plan.json"
MAX_MARK_BYTES = 10_000_000
WRITTEN_BY = "autotune export"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?$")


def write_export(folder: Path, content: Mapping[str, OutFile]) -> None:
    """Write all files of an export into `folder`, which appears whole or stays as it was.

    Raises:
        InputError: the folder holds something that no export wrote, a name is not a plain one, or it cannot be written.
    """
    for name in content:
        if not _NAME.match(name) or ".." in name:
            raise InputError.single(str(folder), f"holds plain file names only, got {name!r}")
    target = Path(os.path.abspath(folder))
    _check_replaceable(target)
    files.write_folder(target, content)


def check_tops(folder: Path, ranks: Sequence[int]) -> None:
    """Refuse a folder of plans in which one that is not of these ranks would stay.

    Raises:
        InputError: it holds something else than exports named `top1`, `top2`, ..., or one of another rank.
    """
    names = {f"top{rank}" for rank in ranks}
    try:
        left = [p.name for p in sorted(folder.iterdir()) if p.name not in names] if folder.exists() else []
    except OSError as error:
        raise InputError.single(str(folder), f"cannot be read: {error.strerror}") from error
    if left:
        raise InputError.single(
            str(folder), f"must be new, empty or hold only {', '.join(sorted(names))}: it holds {left[0]}"
        )


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
    except InputError:
        raise
    except ValueError as error:  # a NUL in the name
        raise InputError.single(repr(str(target)), f"is not a folder name: {error}") from error


def is_export(folder: Path) -> bool:
    """Whether an export wrote this folder."""
    try:
        document = json.loads(read_file(folder / MARK, MAX_MARK_BYTES))
    except (ValueError, RecursionError):  # an InputError is a ValueError
        return False
    return isinstance(document, dict) and document.get("written_by") == WRITTEN_BY
