"""Contrastive preference optimization is DPO with a uniform reference, plus a likelihood term on the winner.

The paper calls it CPO; the library writes the name out because CPO also names another paper's method.

```text
loss = -log sigma(beta [log pi(y_w) - log pi(y_l)]) + alpha NLL(y_w)        NLL: mean over the winner's tokens
```

Without a reference it takes DPO's memory and time down; the likelihood term keeps the winner from falling.

With `loss=hinge` the first term is `max(0, 1 - beta [log pi(y_w) - log pi(y_l)])`, with `loss=ipo` the squared distance
of the averages' gap from its target, `(log pi(y_w)/|y_w| - log pi(y_l)/|y_l| - 1/(2 beta))^2`. `label_smoothing` goes
with the logistic one.

## Relations

Averages in place of sums, a target margin and alpha = 0 give SimPO. `orpo` uses odds. It was made for
machine translation. TRL's CPOTrainer is `contrastive_po` with `alpha` for its `cpo_alpha`, `loss` for its `loss_type`, and
`average=batch`.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="contrastive_po",
    title="Contrastive preference optimization",
    paper=Paper(
        title=(
            "Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine "
            "Translation"
        ),
        authors=(
            "Haoran Xu, Amr Sharaf, Yunmo Chen, Weiting Tan, Lingfeng Shen, Benjamin Van Durme, Kenton "
            "Murray, Young Jin Kim"
        ),
        year=2024,
        arxiv="2401.08417",
        venue="ICML 2024",
    ),
    summary="DPO without a reference, plus the winner's negative log-likelihood.",
    use_when="Near-perfect winners (translation, edits), no room for a reference.",
    failure_signs=(
        "Winner's `logps/chosen` falls: raise alpha. The preference term does nothing beside the likelihood: "
        "lower alpha or raise beta. Long losers are punished for their length, since sums are compared: use "
        "simpo."
    ),
    defaults={"beta": 0.1, "alpha": 1.0},
    papers_config={
        "paper": "beta 0.1, alpha 1, learning_rate 1e-4 with LoRA",
    },
)
