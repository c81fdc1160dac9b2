"""Vocabulary, shape book and calibration table of element search, and the photos they come from."""
