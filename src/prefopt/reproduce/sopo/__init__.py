"""What `prefopt reproduce sopo` is made of; `run.py` says which file is which experiment."""

from prefopt.reproduce.core import Paper

PAPER = Paper(
    title="SoPo: Text-to-Motion Generation Using Semi-Online Preference Optimization",
    paper="2412.05095",
    seeds=3,
)
