"""A study that can be read elsewhere: nothing in it is the name of another file, but that of a request log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autotune.study.question import Study
from autotune.study.read_and_override import override, read_document
from autotune.study.references import model_file
from costmodel.arch.config.checkpoint import checkpoint_config

STUDY_FILE = "study.json"
CALIBRATION_FILE = "calibration.toml"


def portable_study(study: Study) -> dict[str, str]:
    """Files, name -> text, of which `study.json` is read as the same study, which is from `load_study`.

    The content of a config.json stands inside; a calibration profile is a file of its own; a request log stays where
    it lies and is named by its full path.

    Raises:
        InputError: the study's file can no longer be read.
    """
    path = study.path
    document: dict[str, Any] = override(read_document(path), study.overrides)
    files: dict[str, str] = {}
    model = document["model"]
    file = model_file(model, path.parent) if isinstance(model, str) else None
    if file is not None:
        config, name = checkpoint_config(file)
        document["model"] = {**config, "name": name}
    if "calibration" in document:
        calibration, document["calibration"] = document["calibration"], CALIBRATION_FILE
        files[CALIBRATION_FILE] = (path.parent / calibration).read_text(encoding="utf-8")
    if "traffic" in document["workload"]:
        log = str((path.parent / Path(document["workload"]["traffic"]).expanduser()).resolve())
        document["workload"] = {**document["workload"], "traffic": log}
    document["name"] = study.name
    return {STUDY_FILE: json.dumps(document, indent=1, ensure_ascii=False) + "\n", **files}
