"""Recorded trajectories of the tiny recipes: 20 steps, every scalar. `make golden` records them anew."""
