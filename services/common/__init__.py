"""What all services share: errors, settings, channels, and how a server runs."""
