"""Controllers that are learned: through the simulator, or from rewards alone."""
