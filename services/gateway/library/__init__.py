"""Libraries and the images in them."""
