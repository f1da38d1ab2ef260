"""From raw gaze samples to what a person looks at: filter, fixations and saccades, blinks."""
