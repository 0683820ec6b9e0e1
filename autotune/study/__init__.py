"""Studies: their files, their storage, their run."""
