"""Edited copies of the data set's pictures: which pictures, which edits, which placements."""
