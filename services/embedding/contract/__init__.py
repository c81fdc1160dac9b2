"""Conversion of messages of the Embedding contract from and to the domain."""
