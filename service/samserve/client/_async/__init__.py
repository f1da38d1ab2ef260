"""The connection, its calls and its streams."""
