"""Trains the small bundled model from freely licensed pictures of Debian packages."""
