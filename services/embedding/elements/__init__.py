"""Elements: patterns, logos, prints and objects that are found inside pictures."""
