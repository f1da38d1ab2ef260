"""The gateway and Triton end to end on a GPU: see `__main__.py` for the command."""
