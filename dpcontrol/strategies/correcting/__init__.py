"""Corrections of a coarse solver that are learned from reference trajectories: inside the solver's loop, or without."""
