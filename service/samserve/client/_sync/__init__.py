# Generated from samserve/client/_async by `make unasync`; do not edit.
"""The connection, its calls and its streams."""
