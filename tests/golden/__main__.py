"""`python -m tests.golden`: record the golden table anew. Look at the difference before it is committed."""

from __future__ import annotations

import sys

from costmodel.version import MODEL_VERSION
from tests.golden.cases import records
from tests.golden.table import TABLE, write_table


def main() -> int:
    """Write the table; exit code 1 where figures moved and the version of the model did not."""
    found = dict(records())
    try:
        write_table(MODEL_VERSION, found)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{len(found)} records -> {TABLE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
