"""Drawn street scenes: RGB, thermal and exact labels."""
