"""Dense DPO weighs the tokens that a correction changed more than those it left.

```text
s(y) = (1/N) [sum over unchanged tokens of rho_t + gamma sum over changed ones]          N = |unchanged| + gamma |changed|
loss = -log sigma(beta (s(y_w) - s(y_l)))
```

Made for answers that people corrected in a few places: what both sides share says nothing about which is right. Tokens count as changed
where the token ids of the two answers do not match in a run of at least three. `normalize: false` leaves out N, as the code derived from
RLHF-V's does; beta then multiplies a sum and should be smaller (0.1).

Nothing of it is about images: it works on any text. A row may hold one pair only, since what is changed depends on the other side.

## Relations

`dpo` with `margin: average` at gamma 1; `dpo` at gamma 1 with `normalize: false`. `chip` weighs tokens so, beside an image contrast.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="ddpo",
    title="Dense DPO on corrected segments",
    paper=Paper(
        title=(
            "RLHF-V: Towards Trustworthy MLLMs via Behavior Alignment from Fine-grained Correctional Human Feedback"
        ),
        authors=(
            "Tianyu Yu, Yuan Yao, Haoye Zhang, Taiwen He, Yifeng Han, Ganqu Cui, Jinyi Hu, Zhiyuan Liu, Hai-Tao Zheng, "
            "Maosong Sun, Tat-Seng Chua"
        ),
        year=2023,
        arxiv="2312.00849",
        venue="CVPR 2024",
    ),
    summary="DPO on weighted means over tokens, in which what the correction changed counts gamma times.",
    use_when="The winner is the loser with a few places corrected, so that most of their tokens are the same.",
    failure_signs=(
        "No better than `dpo`: the sides share few tokens, so that all count as changed. Margins grow while samples repeat "
        "the corrected words: lower gamma."
    ),
    defaults={"beta": 0.5, "gamma": 5.0},
    papers_config={
        "RLHF-V": "beta 0.5, gamma 5, 1.4k rows corrected by people",
        "code after it": "sums, not means; gamma 4, beta 0.1",
    },
)
