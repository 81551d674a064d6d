"""f-DPO replaces the reverse KL penalty behind DPO by another f-divergence.

```text
m = f'(pi(y_w)/pi_ref(y_w)) - f'(pi(y_l)/pi_ref(y_l))        loss = -log sigma(beta m)
f'(t): reverse_kl log t | forward_kl -1/t | js log(2t/(1+t)) | alpha (1 - t^-alpha)/alpha | chi2 t + log t
```

The divergence decides the trade of reward against diversity: forward KL covers more, reverse KL seeks
modes, JS and alpha lie between. It changes the optimum, not only the path.

## Relations

f = reverse_kl is DPO; alpha tends to reverse KL at 0 and forward KL at 1 (TRL's coefficient is 1 - alpha).
chi2 is chi2-PO without its clipping. `f_po` puts the divergence elsewhere. `bpo` with `ratio=fdpo` changes
the link.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="f_dpo",
    title="f-DPO",
    modality="any",
    paper=Paper(
        title=(
            "Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence "
            "Constraints"
        ),
        authors="Chaoqi Wang, Yibo Jiang, Chenghao Yang, Han Liu, Yuxin Chen",
        year=2023,
        arxiv="2309.16240",
        venue="ICLR 2024",
    ),
    summary="DPO under another f-divergence to the reference, for another trade of reward against diversity.",
    use_when="DPO loses too much diversity: try js, or alpha of 0.1 to 0.5.",
    failure_signs=(
        "forward_kl or alpha on long sequences: log-ratios below -80 leave float32's range and those pairs "
        "give no gradient; use js or a small alpha. js: gradient dies for log-ratios far above 0; raise "
        "beta."
    ),
    defaults={"beta": 0.1, "alpha": 0.5},
    papers_config={
        "f-DPO baselines of the BPO paper": "alpha 0.1 chosen from 0.1, 0.3, 0.5, 0.7; beta 0.1",
    },
)
