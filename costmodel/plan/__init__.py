"""What a plan is to the formulas: its layout, stages, dtypes and matrices as columns over plans."""
