"""Measures of how well images follow their control images, answers their images, and motions their texts.

The first of class maps, edges, grey maps, poses and sets of features; the second of log-probabilities (`two_images.py`); the
third of embeddings (`retrieval.py`), beside sanity figures of motions alone (`motion.py`).

Functions of tensors alone, which import nothing else of the package. Each file is a family; `control.py` compares methods.
"""
