"""A graph in the formats of other tools."""

from autotune.graph.export.files import FORMATS, write_graph

__all__ = ["FORMATS", "write_graph"]
