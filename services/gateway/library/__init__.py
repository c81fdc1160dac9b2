"""Libraries and their images: adding, reading, changing and deleting."""
