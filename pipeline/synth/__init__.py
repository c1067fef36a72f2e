"""Artificial blood smears: a seed in, pixels and their truth out. Never evidence of accuracy."""
