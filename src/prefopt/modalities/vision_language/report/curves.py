"""Curves of runs that compare under several images, beside those of text."""

from __future__ import annotations

from prefopt.modalities.text.report.curves import TEXT_GROUPS
from prefopt.report.curves import Curve, Groups, one

IMAGES = (
    "Does the answer follow the image?",
    "A row has two images, and for each an answer that is right: under its own image the chosen answer should win, under the contrast "
    "image the contrasting one. In nats of log-ratio, without beta.",
    [
        Curve(
            title="Margins of the two right answers", unit="nats", levels=[(0.0, "no preference")],
            metrics=[
                ("symmpo/margin_own", "own image", "chosen"), ("symmpo/margin_contrast", "contrast image", "rejected"),
            ],
            look_for="Both rise together: which answer is right depends on the image.",
            trouble="One rises and the other falls: one answer is preferred whatever is shown.",
        ),
        Curve(
            title="Gap between them", metrics=one("symmpo/margin_gap"), unit="nats, mean absolute difference", y_range=(0.0, 0.0),
            look_for="Growth slower than that of the margins.",
            trouble="Of hundreds of nats: the margin term's gradient outweighs the others; lower margin_weight.",
        ),
        Curve(
            title="Right answer under its own image", metrics=one("symmpo/accuracy_own"), shares=True, levels=[(0.5, "coin flip")],
            look_for="A rise above one half.",
        ),
        Curve(
            title="Right answer under the contrast image", metrics=one("symmpo/accuracy_contrast"), shares=True,
            levels=[(0.5, "coin flip")],
            look_for="As high as under the own image.",
        ),
        Curve(
            title="What the image adds to the answer", metrics=one("vdpo/image_sensitivity"), unit="nats",
            look_for="A rise: the chosen answer is likelier with the image than without.",
        ),
    ],
)  # fmt: skip

PICTURED_GROUPS: Groups = [TEXT_GROUPS[0], IMAGES, *TEXT_GROUPS[1:]]
