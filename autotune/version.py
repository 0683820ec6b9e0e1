"""The version of the program, which the package, `--version` and every page say."""

VERSION = "0.2.0"
DISTRIBUTION = "autotune-serving"
"""Its name on the Python Package Index, where `autotune` is another project."""
