"""Motions of skeletons: what they are made of, files that hold them, and models that generate and compare them.

For motions this room is what diffusers and transformers are for images and texts: it knows nothing of preferences.

| file | says |
|---|---|
| `skeleton.py` | joints, who hangs on whom, left and right |
| `codec.py` | features a frame from positions of joints, and back |
| `retrieval.py` | how well a motion fits a text: a pair of encoders |
| `retrieval_training.py`, `small_texts.py` | training of such a pair by contrast; a text encoder for captions of few words |
| `t2m_evaluator.py`, `tagged_words.py` | the judge that the field reports numbers of; captions as it reads them |
| `converting.py` | released weights of MDM and of that judge, as folders of ours |

Features that leave a file or a model are in physical units (metres, radians a frame). Only a model itself, by the mean and
standard deviation that it was trained with (`stats.py`), makes z-scores of them, so that none is normalised twice or
by somebody else's numbers.
"""
