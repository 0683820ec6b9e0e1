"""Where the golden tables lie."""

from pathlib import Path

TABLE = Path(__file__).with_name("table.json")
