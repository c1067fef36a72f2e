"""Synthetic blood smears: pixels with their ground truth, from a seed. Not for measuring accuracy."""
