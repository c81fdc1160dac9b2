"""Decodes untrusted pictures in worker processes that are limited, killed and replaced."""
