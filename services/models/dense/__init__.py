"""Training and measurement of the dense copy descriptor."""
