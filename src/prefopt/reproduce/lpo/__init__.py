"""What `prefopt reproduce lpo` is made of; `run.py` says which file is which experiment."""

from prefopt.reproduce.core import Paper

PAPER = Paper(
    title="Diffusion Model as a Noise-Aware Latent Reward Model for Step-Level Preference Optimization",
    paper="2502.01051",
    seeds=3,
)
