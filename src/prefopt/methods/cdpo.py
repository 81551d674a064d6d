"""Conservative DPO assumes that a share e of the labels is flipped, and aims at a finite margin.

From Eric Mitchell's note "A note on DPO with noisy preferences and relationship to IPO" (2023), which is
not on arXiv; the citation below is DPO's.

```text
u = beta [log pi(y_w)/pi_ref(y_w) - log pi(y_l)/pi_ref(y_l)]
loss = -(1 - e) log sigma(u) - e log sigma(-u)          e = label_smoothing
```

The loss is least at u = logit(1 - e): 2.2 for e = 0.1. A pair beyond that is pulled back.

## Relations

e = 0 is DPO. `robust` undoes the noise instead of smoothing it. `f_po` with forward_kl is this loss up to a
constant. TRL 1.16 ignores `label_smoothing` with its "sigmoid" loss; here `dpo` with `label_smoothing` is
this method.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="cdpo",
    title="Conservative DPO",
    modality="any",
    paper=Paper(
        title="Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        authors=(
            "Rafael Rafailov, Archit Sharma, Eric Mitchell, Stefano Ermon, Christopher D. Manning, Chelsea "
            "Finn"
        ),
        year=2023,
        arxiv="2305.18290",
        venue="NeurIPS 2023",
    ),
    summary="DPO with label smoothing: margins aim at logit(1 - e) instead of infinity.",
    use_when=(
        "Labels are somewhat noisy (crowd votes, a weak judge), or DPO overfits. With vote counts for each "
        "pair, soft votes are better still."
    ),
    failure_signs=(
        "Margins stall near logit(1 - e) and win rates stay low: e is larger than the noise; lower "
        "label_smoothing. Still overfits: raise it, or beta."
    ),
    defaults={"label_smoothing": 0.1},
)
