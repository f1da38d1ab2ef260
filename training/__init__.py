"""Trains the small bundled model on freely licensed photographs from Debian packages."""
