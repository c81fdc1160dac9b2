"""The services of the image-search suite."""
