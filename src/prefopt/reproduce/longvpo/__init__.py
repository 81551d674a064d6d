"""What `prefopt reproduce longvpo` is made of; `run.py` says which file is which experiment."""

from prefopt.reproduce.core import Paper

PAPER = Paper(
    title="LongVPO: From Anchored Cues to Self-Reasoning for Long-Form Video Preference Optimization",
    paper="2602.02341",
    seeds=3,
)
