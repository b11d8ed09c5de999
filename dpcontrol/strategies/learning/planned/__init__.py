"""Planned control for long horizons: where to be half-way, again and again, and how to get to the next state."""
