"""What the hardware is: one GPU type, and the cluster built of it. SI units."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU type. Peaks are dense (no sparsity); link figures are per GPU and per direction."""

    name: str
    base: str | None = None
    """Catalog GPU of which some figures were changed; None: as in the catalog, or described in full."""
    generation: str
    """ampere, ada, hopper, blackwell, blackwell_ultra, cdna3, cdna4: whose efficiencies apply."""
    product: str | None = None
    """What the driver calls it, as `nvidia-smi` prints; None: not known here. No effect on results."""
    peak_flops_per_s: dict[str, float]
    """Dense peak by compute dtype: bf16, fp8, fp4, int8 (absent: not supported in hardware)."""
    hbm_bytes: float
    hbm_bytes_per_s: float
    scaleup_gpus: int | None
    """GPUs in one NVLink (Infinity Fabric, PCIe) domain; None: those of one host, however many it has."""
    scaleup_bytes_per_s: float
    scaleup_latency_s: float
    scaleout_bytes_per_s: float
    """Between domains: the NIC of one GPU, or the PCIe that joins the domains of one host."""
    scaleout_latency_s: float
    gpus_per_node: int
    """GPUs of one host."""
    hbm_efficiency: float | None = None
    """Achievable share of peak HBM bandwidth where the user measured it; None: the calibration's."""
    price_per_hour: float | None = None
    """US dollars; only where a public price list is cited."""
    sources: dict[str, str] = field(default_factory=dict)
    """Field name -> where its figure comes from."""
    assumptions: tuple[str, ...] = ()
    """What an inline table left open and was filled in."""

    @property
    def is_amd(self) -> bool:
        """Whether it is AMD's, which libraries of ROCm drive."""
        return self.generation.startswith("cdna")

    @property
    def measured_as(self) -> str:
        """The name it was measured under, if it was: with some figures changed a GPU still behaves most like itself."""
        return self.base or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """GPUs of one type, all of which a plan uses."""

    gpus: int
    gpu: Gpu
    gpus_per_node: int
    """GPUs of one host; link tiers follow `domain_gpus`, launch files follow this."""

    @property
    def domain_gpus(self) -> int:
        """GPUs that reach each other over the scale-up links: a host, part of one (pairs), or more (NVL72)."""
        return self.gpu.scaleup_gpus or self.gpus_per_node

    def takes_whole(self, gpus: int) -> bool:
        """Whether a replica of so many GPUs fits a node a whole number of times, or takes whole nodes."""
        small, large = sorted((gpus, self.gpus_per_node))
        return large % small == 0
