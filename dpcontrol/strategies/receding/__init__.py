"""Plans that are made again and again: a receding horizon, sampled plans, states estimated from observations."""
