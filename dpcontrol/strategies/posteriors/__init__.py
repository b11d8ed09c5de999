"""Posteriors: Markov chains, and approximations that say so."""
