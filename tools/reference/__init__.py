"""Generates the reference in `docs/reference/` from the proto, the client and the gateway's settings."""
