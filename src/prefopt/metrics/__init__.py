"""Measures of how well images follow their control images: class maps, edges, grey maps, poses, sets of features.

Functions of tensors alone, which import nothing else of the package. Each file is a family; `control.py` compares methods.
"""
