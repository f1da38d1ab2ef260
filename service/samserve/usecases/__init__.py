"""The use cases: segmentation of images by prompts. Ports describe what they need from the outside world."""
