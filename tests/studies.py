"""The studies that are shipped."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "studies"
STUDIES = sorted(p for p in FOLDER.glob("*.toml") if not p.name.endswith(".claims.toml"))
"""Claims of a report lie beside the study that they are about."""
