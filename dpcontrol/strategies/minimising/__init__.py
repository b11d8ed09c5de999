"""Minimising with gradients: from first order to Newton, separate searches in lock-step."""
