"""Libraries: creating, changing, listing and deleting them."""
