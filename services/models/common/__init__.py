"""Shared parts of the commands that make committed artefacts."""
