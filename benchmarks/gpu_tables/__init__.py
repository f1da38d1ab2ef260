"""Markdown tables and charts of the GPU figures in `benchmarks/results/`, written into the pages that show them."""
