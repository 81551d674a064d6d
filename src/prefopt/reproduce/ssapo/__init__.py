"""What `prefopt reproduce ssapo` is made of; `run.py` says which file is which experiment."""

from prefopt.reproduce.core import Paper

PAPER = Paper(
    title="Stackelberg Self-Annotation: A Robust Approach to Data-Efficient LLM Alignment",
    paper="2502.18099",
    seeds=40,
)
