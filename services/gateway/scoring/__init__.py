"""Raw similarities to scores and false-positive rates."""
