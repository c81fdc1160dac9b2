"""Code that all services share: value types, errors, settings, channels and the server."""
