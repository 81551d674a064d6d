"""Measures of how well images follow their control images, and of whether answers follow their images.

The former of class maps, edges, grey maps, poses and sets of features; the latter of log-probabilities (`two_images.py`).

Functions of tensors alone, which import nothing else of the package. Each file is a family; `control.py` compares methods.
"""
