"""Write every page and picture that is made: `python -m tools.pages`, or `make pages`."""

from __future__ import annotations

import sys

from tools.pages.made import ROOT, made

for name, content in made().items():
    path = ROOT / name
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        path.write_text(content, encoding="utf-8")
        sys.stdout.write(f"written anew: {name}\n")
