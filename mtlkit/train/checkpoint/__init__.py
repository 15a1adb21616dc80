"""Checkpoints: when they are written, what they hold, and the way back to the bit."""
