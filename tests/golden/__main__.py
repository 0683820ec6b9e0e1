"""`python -m tests.golden`: record the golden tables anew. Look at the difference before it is committed."""

from __future__ import annotations

import json

from tests.golden.cases import records
from tests.golden.table import TABLE


def main() -> None:
    """Write the table: a record a line, so that a difference shows which plan moved."""
    lines = [f"{json.dumps(name)}: {json.dumps(figures)}" for name, figures in records()]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{len(lines)} records -> {TABLE}")  # noqa: T201


if __name__ == "__main__":
    main()
