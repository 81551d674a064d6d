"""Training: one loop for every method, and what surrounds it (checks, checkpoints, metrics, records)."""
