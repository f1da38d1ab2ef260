"""Reading image files and rendering masks, with Pillow."""
