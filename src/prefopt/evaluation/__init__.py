"""Evaluation: samples, rewards and distances of a policy."""
