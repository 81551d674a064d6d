"""What `prefopt reproduce ties` is made of; `run.py` says which file is which experiment."""

from prefopt.reproduce.core import Paper

PAPER = Paper(
    title="On Extending Direct Preference Optimization to Accommodate Ties",
    paper="2409.17431",
    seeds=10,
)
