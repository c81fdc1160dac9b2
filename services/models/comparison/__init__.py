"""The logistic model and the calibration table of image comparison."""
