"""The public contract: protobuf messages in, domain values out, and back."""
