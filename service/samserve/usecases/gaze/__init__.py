"""The use case behind the gaze stream."""
