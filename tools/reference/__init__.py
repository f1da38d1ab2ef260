"""Writes the API reference in `docs/reference/` from the proto and from the client's source."""
