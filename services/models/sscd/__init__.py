"""Background set and calibration table of the copy descriptor SSCD, whose weights are fetched."""
