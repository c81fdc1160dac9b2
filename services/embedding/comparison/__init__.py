"""Comparison of two pictures: alignment, measures, likely edits and an overlay."""
