"""The hardware catalog: figures by hand, a source for each, names people write, tables of a study."""

from __future__ import annotations

import shutil
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from autotune.engines import traits_by_name
from costmodel.arch import load_model
from costmodel.calibration.measured_cells import not_measured
from costmodel.calibration.residual import residual_columns
from costmodel.errors import InputError
from costmodel.hardware import Cluster, catalog, gpu_from_table, gpu_names, load_gpu
from costmodel.plan.columns import ClusterColumns

REQUIRED = {
    "a100_40_sxm", "a100_80_sxm", "h20", "h100_sxm", "h100_pcie", "h800", "h200_sxm", "b200_sxm", "b300_sxm",
    "gb200_nvl72", "gb300_nvl72", "mi300x", "mi325x", "mi355x", "l40s",
}  # fmt: skip
TABLE = {
    "peak_tflops": {"bf16": 400},
    "hbm_gib": 59.6,
    "hbm_tb_per_s": 1.8,
    "scaleup_gb_per_s": 450,
    "scaleout_gb_per_s": 50,
}


def test_all_types_are_there() -> None:
    """No GPU of the contract is missing."""
    assert set(gpu_names()) >= REQUIRED


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_every_figure_has_a_source(name: str) -> None:
    """Each figure of a file names where it comes from."""
    table = tomllib.loads((files("costmodel.hardware") / "catalog_data" / f"{name}.toml").read_text(encoding="utf-8"))
    figures = set(table) - {"name", "aliases", "generation", "sources"}
    assert figures <= set(table["sources"])
    assert all(len(s) > 5 for s in table["sources"].values())


@pytest.mark.parametrize(
    ("name", "bf16", "fp8", "hbm", "link", "nic"),
    [
        ("H100-SXM", 989.4e12, 1978.9e12, 3.35e12, 450e9, 50e9),
        ("h200", 989.4e12, 1978.9e12, 4.8e12, 450e9, 50e9),
        ("h800", 989.4e12, 1978.9e12, 3.35e12, 200e9, 50e9),
        ("b200_sxm", 2250e12, 4500e12, 8e12, 900e9, 50e9),
        ("gb200", 2500e12, 5000e12, 8e12, 900e9, 50e9),
        ("MI300X", 1307.4e12, 2614.9e12, 5.3e12, 448e9, 50e9),
    ],
)
def test_figures(name: str, bf16: float, fp8: float, hbm: float, link: float, nic: float) -> None:
    """Dense peaks and bandwidths of data sheets, in SI."""
    gpu = load_gpu(name)
    assert gpu.peak_flops_per_s["bf16"] == pytest.approx(bf16)
    assert gpu.peak_flops_per_s["fp8"] == pytest.approx(fp8)
    assert (gpu.hbm_bytes_per_s, gpu.scaleup_bytes_per_s, gpu.scaleout_bytes_per_s) == pytest.approx((hbm, link, nic))


def test_racks_are_one_domain() -> None:
    """72 GPUs reach each other, four to a host."""
    gpu = load_gpu("gb300_nvl72")
    assert (gpu.scaleup_gpus, gpu.gpus_per_node) == (72, 4)


def test_tables() -> None:
    """A study's own GPU, whole or as a change of a known one."""
    own = gpu_from_table({**TABLE, "hbm_efficiency": 0.8}, "$.cluster.gpu")
    assert own.hbm_efficiency == 0.8
    assert own.assumptions == ("$.cluster.gpu.generation not given: efficiencies of hopper",)
    changed = gpu_from_table({"base": "h200", "hbm_gib": 96.0}, "$.cluster.gpu")
    assert changed.hbm_bytes == 96 * 2**30
    assert changed.hbm_bytes_per_s == load_gpu("h200").hbm_bytes_per_s


@pytest.mark.parametrize("more", [{}, {"name": "h200 with less memory"}])
def test_a_changed_gpu_is_measured_as_what_it_was(more: dict[str, str]) -> None:
    """Whatever it is called, its errors are those of the GPU whose figures it changes; one of its own has none."""
    arch, h200, vllm = load_model("gpt-oss-120b"), load_gpu("h200"), traits_by_name()["vllm"]
    changed = gpu_from_table({"base": "h200", "hbm_gib": 96.0, **more}, "$.cluster.gpu")
    own = gpu_from_table({**TABLE, "generation": h200.generation}, "$.cluster.gpu")
    assert (changed.base, own.base, h200.base) == (h200.name, None, None)
    of_type = {gpu.name: residual_columns([(arch, gpu, vllm, "0.18.0")]).tpot for gpu in (h200, changed, own)}
    assert of_type[changed.name].mean.tolist() == of_type[h200.name].mean.tolist()
    assert of_type[own.name].mean.tolist() != of_type[h200.name].mean.tolist()
    assert len(not_measured(arch, own, vllm)) == len(not_measured(arch, changed, vllm)) + 1


def test_problems_come_together() -> None:
    """NaN, zero, unknown and missing fields are one error with a path each."""
    with pytest.raises(InputError, match="hbm_tb_per_s") as caught:
        gpu_from_table({**TABLE, "hbm_tb_per_s": float("nan"), "hbm_gib": 0, "watts": 700, "peak_tflops": {}}, "$.g")
    paths = {p.path for p in caught.value.problems}
    assert paths == {"$.g.hbm_tb_per_s", "$.g.hbm_gib", "$.g.watts", "$.g.peak_tflops.bf16"}


@pytest.mark.parametrize("change", [{"generation": "turing"}, {"base": "h2000"}, {"base": 7}])
def test_unknown_names(change: dict[str, object]) -> None:
    """A generation or base that does not exist is named."""
    with pytest.raises(InputError, match=r"turing|h2000|7"):
        gpu_from_table({**TABLE, **change}, "$.g")


def test_unknown_gpu() -> None:
    """The nearest names and the other way to give one."""
    with pytest.raises(InputError, match=r"'h1000' is not in the catalog; the nearest are .*\[cluster\.gpu\] table"):
        load_gpu("h1000")


def test_a_name_belongs_to_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copied file that keeps an alias of its original, or takes another GPU's name, takes nothing over silently."""
    data = Path(str(files("costmodel.hardware"))) / "catalog_data"
    folder = tmp_path / "catalog_data"
    shutil.copytree(data, folder)
    copied = (folder / "h200_sxm.toml").read_text(encoding="utf-8")
    (folder / "a_copy.toml").write_text(copied, encoding="utf-8")
    (folder / "z_copy.toml").write_text(copied.replace("aliases = [", 'aliases = ["h100_sxm", '), encoding="utf-8")
    monkeypatch.setattr(catalog, "_DATA", folder)
    catalog._index.cache_clear()
    try:
        with pytest.raises(InputError, match="must not have the alias") as caught:
            load_gpu("h200")
    finally:
        catalog._index.cache_clear()
    assert {p.path for p in caught.value.problems} == {"h200_sxm.toml", "z_copy.toml"}
    assert any("'h100_sxm'" in p.message for p in caught.value.problems)
    monkeypatch.undo()
    assert load_gpu("h200").name == "h200_sxm"


@pytest.mark.parametrize(
    ("table", "host", "domain"),
    [
        ({"base": "h100_pcie", "scaleup_gpus": 2}, 8, 2),  # NVLink bridges join pairs
        ({"base": "h100_pcie", "scaleup_gpus": 1}, 8, 1),
        ({"base": "h100_pcie", "scaleup_gpus": 8}, 16, 8),
        ({"base": "h100_pcie"}, 16, 16),
        ({"base": "h100_sxm", "gpus_per_node": 4}, 4, 4),
        ({"base": "gb200_nvl72"}, 4, 72),
        (TABLE, 4, 4),
    ],
)
def test_a_domain_is_what_the_table_says(table: dict[str, object], host: int, domain: int) -> None:
    """Part of a host, more than a host, and where nothing is said a host."""
    cluster = Cluster(gpus=64, gpu=gpu_from_table(table, "$.cluster.gpu"), gpus_per_node=host)
    assert cluster.domain_gpus == domain
    assert ClusterColumns.of([cluster]).domain_gpus.tolist() == [domain]


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_domains_of_the_catalog(name: str) -> None:
    """A host of eight, but for the racks of 72."""
    gpu = load_gpu(name)
    own = Cluster(gpus=144, gpu=gpu, gpus_per_node=gpu.gpus_per_node)
    assert own.domain_gpus == (72 if name.endswith("nvl72") else 8)
