"""The use cases: an image and prompts in, masks out, with what they need of the outside world as ports."""
