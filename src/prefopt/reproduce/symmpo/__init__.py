"""What `prefopt reproduce symmpo` is made of; `run.py` says which file is which experiment."""

from prefopt.reproduce.core import Paper

PAPER = Paper(
    title="Mitigating Hallucination Through Theory-Consistent Symmetric Multimodal Preference Optimization",
    paper="2506.11712",
    seeds=5,
)
