"""Prediction: a pair, a folder, a film to label maps."""
