"""Motions of skeletons: what they are made of, files that hold them, and models that generate and compare them.

For motions this room is what diffusers and transformers are for images and texts: it knows nothing of preferences.

| file | says |
|---|---|
| `skeleton.py` | joints, who hangs on whom, left and right |
| `retrieval.py` | how well a motion fits a text: a pair of encoders |
| `retrieval_training.py`, `small_texts.py` | training of such a pair by contrast; a text encoder for captions of few words |
| `t2m_evaluator.py`, `tagged_words.py` | the judge that the field reports numbers of; captions as it reads them |
| `converting.py` | released weights of MDM and of that judge, as folders of ours |
| `codec.py` | features a frame from positions of joints, and back; codecs by name |
| `humanml3d.py` | the codecs of HumanML3D and KIT-ML |
| `stick.py` | a stick figure of 11 joints and its codec |
| `rotations.py` | quaternions, matrices, 6-D, Euler angles, the shortest arc |
| `kinematics.py` | positions from turns, bones from positions, figures with other bones, other rates |
| `mirror.py` | left and right exchanged, in motions and in captions |
| `clips.py` | a motion with its captions as a value, and the part of it that a visit takes |
| `folders.py`, `captions.py` | HumanML3D's and KIT-ML's folders as they are; what cannot be used, and why |
| `loading.py` | one motion file of any kind as features |
| `arrays.py`, `bvh.py`, `amass.py` | what such files hold: arrays, BVH, poses of the SMPL family |
| `retarget.py` | other figures' joints brought to HumanML3D's, by name |
| `bvh_writing.py` | positions written as BVH |
| `drawing.py`, `camera.py` | stick figures as GIF, WebP, PNG and SVG; what is seen of them |

Features that leave a file or a model are in physical units (metres, radians a frame). Only a model itself, by the mean and
standard deviation that it was trained with (`stats.py`), makes z-scores of them, so that none is normalised twice or
by somebody else's numbers.
"""
