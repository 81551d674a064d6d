"""Unpaired AOT asks the distribution of good responses' rewards to dominate that of bad ones.

```text
rho = log pi(y)/pi_ref(y); sort rho_w and rho_l over the micro-batch
loss_k = -(1 - e) log sigma(beta d_k) - e log sigma(-beta d_k)      d_k = rho_w(k) - rho_l(k)
```

Who was compared with whom is not used. Rows are pairs all the same: as many good as bad responses a
micro-batch.

## Relations

With one row a micro-batch it is DPO. `aot` keeps the pairs. The result depends on
`per_device_train_batch_size`.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="aot_unpaired",
    title="Alignment by optimal transport (unpaired)",
    modality="any",
    paper=Paper(
        title="Distributional Preference Alignment of LLMs via Optimal Transport",
        authors="Igor Melnyk, others",
        year=2024,
        arxiv="2406.05882",
        venue="NeurIPS 2024",
    ),
    summary="DPO between sorted rewards of winners and losers, whoever was compared with whom.",
    use_when="Good and bad responses that were never compared, put side by side in rows.",
    failure_signs=(
        "Same curve as DPO: the micro-batch is too small. Margins grow by length or prompt difficulty alone: "
        "prompts of the two kinds differ; pair them."
    ),
    defaults={"beta": 0.01},
)
