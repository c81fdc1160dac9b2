"""Searches: one pipeline, a strategy for each library type."""
