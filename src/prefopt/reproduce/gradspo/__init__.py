"""What `prefopt reproduce gradspo` is made of; `run.py` says which file is which experiment."""

from prefopt.reproduce.core import Paper

PAPER = Paper(
    title="A Gradient Guidance Perspective on Stepwise Preference Optimization for Diffusion Models",
    paper="d6lIOnvOX2",
    seeds=6,
)
