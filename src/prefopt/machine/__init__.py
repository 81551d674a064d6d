"""What the machine gives a run: memory, as it is forecast, measured and kept."""
