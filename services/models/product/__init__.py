"""Training, measurement and calibration of the models of product search."""
