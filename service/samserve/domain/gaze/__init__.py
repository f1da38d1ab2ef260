"""Interpretation of raw gaze samples: filtering, fixations and saccades, blinks."""
