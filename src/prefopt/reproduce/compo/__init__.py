"""What `prefopt reproduce compo` is made of; `run.py` says which file is which experiment."""

from prefopt.reproduce.core import Paper

PAPER = Paper(
    title="ComPO: Preference Alignment via Comparison Oracles",
    paper="2505.05465",
    seeds=8,
)
