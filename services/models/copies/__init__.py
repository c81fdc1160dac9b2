"""Edited copies of pictures of the data set: the split of the pictures, edits and placements."""
