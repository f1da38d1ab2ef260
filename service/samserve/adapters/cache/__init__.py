"""Caches and leases within one process, and the tiers of a cache."""
