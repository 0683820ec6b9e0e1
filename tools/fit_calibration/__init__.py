"""Development tool: rebuilds the calibration files from measurements. Not imported by the product."""
