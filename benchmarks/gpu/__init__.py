"""GPU evidence kit: what one GPU tells about SAM's encoder and decoder, in minutes, by one command."""
