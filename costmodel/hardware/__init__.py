"""What the hardware is: GPU types with the source of every number."""

from costmodel.hardware.catalog import gpu_from_table, gpu_names, load_gpu
from costmodel.hardware.gpu import Cluster, Gpu

__all__ = ["Cluster", "Gpu", "gpu_from_table", "gpu_names", "load_gpu"]
