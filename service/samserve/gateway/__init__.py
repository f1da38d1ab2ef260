"""The composition root: builds a gateway from its settings."""
