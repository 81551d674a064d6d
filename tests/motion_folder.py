"""A miniature folder in the layout of HumanML3D, of figures that wander about.

folder = write_motion_folder(tmp_path / "data")      # 12 clips to train on, one of them broken, 4 of val, 33 of test
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from walking_figures import wander

CAPTIONS = (
    ("a person walks forward", "a/DET person/NOUN walk/VERB forward/ADV"),
    ("a person waves the left hand", "a/DET person/NOUN wave/VERB the/DET left/ADJ hand/NOUN"),
    ("a person waves the right hand", "a/DET person/NOUN wave/VERB the/DET right/ADJ hand/NOUN"),
    ("the figure jumps twice", "the/DET figure/NOUN jump/VERB twice/ADV"),
    ("a figure waves", "a/DET figure/NOUN wave/VERB"),
)
SPLITS = {"train": 12, "val": 4, "test": 33}


def write_motion_folder(folder: Path) -> Path:
    """Clips of 40 to 44 frames, the second with a caption of a part, the last of it not finite; returns the folder."""
    from prefopt.motion.clips import MotionClip
    from prefopt.motion.folders import measured_stats
    from prefopt.motion.humanml3d import HUMANML3D

    for name in ("new_joint_vecs", "texts"):
        (folder / name).mkdir(parents=True)
    clips, number = [], 0
    for split, count in SPLITS.items():
        ids = [f"{number + n:06d}" for n in range(count)]
        (folder / f"{split}.txt").write_text("".join(f"{id}\n" for id in ids))
        for id in ids:
            text, tokens = CAPTIONS[number % len(CAPTIONS)]
            features = HUMANML3D.features(wander(41 + number % 3 * 2, seed=number)).float().numpy()
            clips.append(MotionClip(id, (text,), features, "humanml3d", 0, len(features)))
            lines = f"{text}#{tokens}#0.0#0.0\n"
            if number == 1:
                lines += "a person jumps#a/DET person/NOUN jump/VERB#0.0#2.0\n"
            if split == "train" and id == ids[-1]:
                features = np.where(np.arange(len(features))[:, None] == 7, np.nan, features)
            np.save(folder / "new_joint_vecs" / f"{id}.npy", features.astype(np.float32))
            (folder / "texts" / f"{id}.txt").write_text(lines)
            number += 1
    stats = measured_stats(clips, HUMANML3D)
    np.save(folder / "Mean.npy", stats.mean_D.numpy())
    np.save(folder / "Std.npy", stats.std_D.numpy())
    return folder
