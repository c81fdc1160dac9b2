"""The near-duplicate classifier of the Gateway, and the pictures that it is fitted on."""
