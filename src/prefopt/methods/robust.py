"""Robust DPO corrects the loss for labels that were flipped at a known rate e.

```text
u = beta [log pi(y_w)/pi_ref(y_w) - log pi(y_l)/pi_ref(y_l)]
loss = [-(1 - e) log sigma(u) + e log sigma(-u)] / (1 - 2e)      e = label_smoothing
```

Averaged over labels flipped at rate e this is DPO's loss on the clean labels. The price is variance, and a
loss that has no lower bound: it turns negative, and that is no error.

## Relations

e = 0 is DPO. `cdpo` smooths: biased, bounded, calmer.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="robust",
    title="Robust DPO",
    modality="any",
    paper=Paper(
        title="Provably Robust DPO: Aligning Language Models with Noisy Feedback",
        authors="Sayak Ray Chowdhury, Anush Kini, Nagarajan Natarajan",
        year=2024,
        arxiv="2403.00409",
        venue="ICML 2024",
    ),
    summary="An unbiased estimate of DPO's clean loss from labels flipped at a known rate.",
    use_when=(
        "You know the rate of wrong labels roughly (say, from judging some pairs twice), it is the same "
        "everywhere, and you have much data."
    ),
    failure_signs=(
        "Loss falls without end and `rewards/margins` explode: e is too large for the data, or training too "
        "long; lower label_smoothing, stop earlier, or use cdpo. Judge by accuracies, not by the loss."
    ),
    defaults={"beta": 0.1, "label_smoothing": 0.1},
)
