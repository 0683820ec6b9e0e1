"""A study that can be read elsewhere: nothing in it is the name of another file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.study.load import study_from_document
from autotune.study.read_and_override import override, read_document
from autotune.study.references import model_file
from costmodel.arch.config.checkpoint import checkpoint_config

STUDY_FILE = "study.json"
CALIBRATION_FILE = "calibration.toml"


def portable_study(path: Path, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Files, name -> text, of which `study.json` is read as the same study as `path` with `overrides`.

    The content of a config.json stands inside; a calibration profile is a file of its own.

    Raises:
        InputError: as `load_study`.
    """
    document: dict[str, Any] = override(read_document(path), overrides)
    study = study_from_document(document, path)
    files: dict[str, str] = {}
    model = document["model"]
    file = model_file(model, path.parent) if isinstance(model, str) else None
    if file is not None:
        config, name = checkpoint_config(file)
        document["model"] = {**config, "name": name}
    if "calibration" in document:
        calibration, document["calibration"] = document["calibration"], CALIBRATION_FILE
        files[CALIBRATION_FILE] = (path.parent / calibration).read_text(encoding="utf-8")
    document["name"] = study.name
    return {STUDY_FILE: json.dumps(document, indent=1, ensure_ascii=False) + "\n", **files}
