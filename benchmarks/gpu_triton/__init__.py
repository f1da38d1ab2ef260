"""Benchmark of the gateway and Triton, end to end, on a GPU."""
