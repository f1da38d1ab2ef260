"""Reads image files."""
