"""The subjects of a picture: their boxes, categories, colors and attributes."""
