"""Vocabulary, shape book and calibration table of element search, and the elements benchmark."""
