"""Elements: patterns, logos, prints and objects that are looked for inside pictures."""
