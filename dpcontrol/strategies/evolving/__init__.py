"""Searches without gradients: populations that are drawn, ranked and refitted."""
