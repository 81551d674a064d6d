"""AlphaPO bends SimPO's reward: a power of the probability takes the place of its logarithm.

```text
a = log pi(y) / |y|        r(y) = beta (1 - e^(-alpha a)) / alpha        alpha -> 0: beta a
loss = -log sigma(r(y_w) - r(y_l) - gamma)
```

The slope of the reward is `beta e^(-alpha a)`: beta for certain text, and for unlikely text more of it with alpha > 0,
less with alpha < 0. The paper finds that this shape decides how much of the winner's likelihood a run gives up for its
margin.

## Relations

alpha = 0 is `simpo`, and everything else is SimPO's: averages a token, `gamma` or `gamma_beta_ratio`, no reference. The
same power of a ratio to the reference is `f_dpo` with `f=alpha`. TRL spells it `alpha` of its CPOTrainer.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="alpha_po",
    title="AlphaPO",
    paper=Paper(
        title="AlphaPO: Reward Shape Matters for LLM Alignment",
        authors=(
            "Aman Gupta, Shao Tang, Qingquan Song, Sirou Zhu, Jiwoo Hong, Ankan Saha, Viral Gupta, Noah Lee, "
            "Eunki Kim, Siyu Zhu, Parag Agrawal, Natesh Pillai, S. Sathiya Keerthi"
        ),
        year=2025,
        arxiv="2501.03884",
        venue="ICML 2025",
    ),
    summary="SimPO with a reward whose shape one number changes, from a logarithm to a power.",
    use_when=(
        "You train with simpo and the winners lose too much likelihood, or the run overfits its margins: alpha is one "
        "more knob for that trade."
    ),
    failure_signs=(
        "Winner's `logps/chosen` falls faster than with simpo: move alpha towards 0 or change its sign. A loss that "
        "jumps, or stands still on long unlikely answers: alpha is too large for their log-probability a token, whose "
        "exponent is capped; lower it. Else as for simpo."
    ),
    defaults={"beta": 2.0, "alpha": 0.25},
)
