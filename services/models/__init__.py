"""Preparation of the models that Triton serves, and the commands that make the artefacts."""
