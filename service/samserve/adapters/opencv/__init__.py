"""Computer vision by OpenCV."""
