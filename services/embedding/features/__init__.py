"""Local features, and the transform between two pictures estimated from their matches."""
