"""Conversions between messages of the contract and domain objects."""
