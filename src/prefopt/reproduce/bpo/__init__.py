"""What `prefopt reproduce bpo` is made of; `run.py` says which file is which experiment."""

from prefopt.reproduce.core import Paper

PAPER = Paper(
    title="Preference Optimization by Estimating the Ratio of the Data Distribution",
    paper="2505.19601",
    seeds=20,
)
