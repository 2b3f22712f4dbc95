"""Scores: counts, protocols, robustness and their report."""
