"""Stand-ins for devices that a fresh machine does not have."""
