"""Pictures drawn by the command: masks over photos, and animations."""
