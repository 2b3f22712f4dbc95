"""Training: recipes, batches, losses, the loop and what a run writes."""
