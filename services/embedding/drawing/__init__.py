"""Draws annotated pictures: outlines with labels, and captioned thumbnails next to the picture."""
