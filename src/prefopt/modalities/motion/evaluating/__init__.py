"""What `prefopt evaluate` of a text-to-motion model does, a subject each.

| file | says |
|---|---|
| `material.py` | true motions and their captions, read and cut |
| `judges.py` | encoders of texts and motions by name; whether a model was trained with one |
| `measuring.py` | the numbers of one set of motions |
| `repeating.py` | what a repetition draws, and what is kept of it |
| `summary.py` | means and intervals, the change against a baseline, the table |
"""
