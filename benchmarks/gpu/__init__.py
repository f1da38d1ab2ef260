"""GPU benchmark: measure SAM's encoder and decoder on one GPU in minutes, with one command."""
