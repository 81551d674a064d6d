"""KTO learns from single responses labelled good or bad, with a loss modelled on prospect theory.

```text
rho = log pi(y)/pi_ref(y)      z0 = max(0, mean rho of completions under other rows' prompts), no gradient
desirable:   w_D [1 - sigma(beta (rho - z0))]
undesirable: w_U [1 - sigma(beta (z0 - rho))]
```

z0 estimates the KL divergence from the reference: gains and losses are felt relative to it. Mismatched
completions come from neighbouring rows of the batch, so a batch needs at least two rows. It is logged as
`kto/z0`, not as `kl`: that name is kept for the divergence measured on the policy's own samples.

## Relations

`bco` is the logistic cousin. Pairs are accepted too: each side becomes a labelled sample. With pairs at
hand, DPO usually learns more per row. For images there is `diffusion_kto`, which needs no mismatched
completions.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="kto",
    title="Kahneman-Tversky optimization",
    paper=Paper(
        title="KTO: Model Alignment as Prospect Theoretic Optimization",
        authors="Kawin Ethayarajh, Winnie Xu, Niklas Muennighoff, Dan Jurafsky, Douwe Kiela",
        year=2024,
        arxiv="2402.01306",
        venue="ICML 2024",
    ),
    summary="Thumbs up or down on single responses, each judged against a running KL estimate.",
    use_when="Feedback is thumbs up or down without pairs, possibly unbalanced.",
    failure_signs=(
        "One kind dominates: keep desirable_weight * n_D / (undesirable_weight * n_U) within [1, 4/3] by the "
        "weights. `kto/z0` (TRL logs it as kl; here `kl` is measured on the policy's own samples) stays 0 "
        "throughout: batches too small or no drift at all; enlarge the batch or raise the learning rate. "
        "Losses saturate near 0 or 1: lower beta."
    ),
    defaults={"beta": 0.1},
    papers_config={
        "paper and code": "beta 0.1, learning_rate 5e-7 to 5e-6",
    },
)
