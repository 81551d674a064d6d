"""What `prefopt reproduce condition_po` is made of; `run.py` says which file is which experiment."""

from prefopt.reproduce.core import Paper

PAPER = Paper(
    title="CPO: Condition Preference Optimization for Controllable Image Generation",
    paper="2511.04753",
    seeds=3,
)
