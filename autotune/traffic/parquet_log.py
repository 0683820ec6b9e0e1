"""Request logs as Parquet files, where pyarrow is installed: columns by the names that CSV and JSON logs have."""

from __future__ import annotations

from io import BytesIO

from autotune.traffic.json_log import JsonRequests
from autotune.traffic.options import ReadOptions
from autotune.traffic.requests import Gathered
from costmodel.errors import InputError

PARQUET_MAGIC = b"PAR1"
ROWS = 10_000
"""Rows that are taken at once."""


def read_parquet(name: str, content: bytes, gathered: Gathered, options: ReadOptions) -> list[str]:
    """Read a Parquet file into `gathered`, a row as `read_jsonl` reads a line.

    Raises:
        InputError: pyarrow is not installed, or the file is damaged.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InputError.single(
            name, "is a Parquet file: pip install 'autotune-serving[parquet]' to read it"
        ) from error
    reader = JsonRequests(name=name, gathered=gathered, options=options)
    try:
        for batch in parquet.ParquetFile(BytesIO(content)).iter_batches(batch_size=ROWS):
            for row in batch.to_pylist():
                # times as ISO text, as they stand in logs of text
                reader.value({k: v.isoformat() if hasattr(v, "isoformat") else v for k, v in row.items()})
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise InputError.single(name, f"is a damaged Parquet file: {error}") from error
    reader.flush()
    return reader.assumptions
