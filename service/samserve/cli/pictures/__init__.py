"""Draws what the command shows: masks over photos, animations."""
