"""Two files of one checkpoint, which lie beside the repository."""

from __future__ import annotations

from pathlib import Path

from costmodel.arch import read_config_file, weight_bytes


def test_a_wrapper_of_module_names_changes_nothing(shared_dir: Path) -> None:
    """Two files of one model, with and without a multimodal wrapper in the names of its modules, cost the same."""
    folder = shared_dir / "cases" / "model_quant_wrapped_names"
    wrapped, plain = (read_config_file(folder / name) for name in ("config.json", "same_without_wrapper.json"))
    assert weight_bytes(wrapped) == weight_bytes(plain)
    assert wrapped.dtypes == plain.dtypes
