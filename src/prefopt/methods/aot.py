"""AOT asks the distribution of the policy's margins to dominate the reference's, not each pair alone.

```text
p = log pi(y_w) - log pi(y_l)       q = log pi_ref(y_w) - log pi_ref(y_l)
sort p and q over the micro-batch;  d_k = p_(k) - q_(k)
loss_k = -(1 - e) log sigma(beta d_k) - e log sigma(-beta d_k)
```

Matching order statistics is optimal transport in one dimension, and the loss a relaxation of first-order
stochastic dominance.

## Relations

With one row a micro-batch it is DPO. `aot_unpaired` compares winners' rewards with losers' rewards. The
result depends on `per_device_train_batch_size`, not on the accumulated batch.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="aot",
    title="Alignment by optimal transport (paired)",
    paper=Paper(
        title="Distributional Preference Alignment of LLMs via Optimal Transport",
        authors="Igor Melnyk, others",
        year=2024,
        arxiv="2406.05882",
        venue="NeurIPS 2024",
    ),
    summary=(
        "DPO between sorted margins of policy and reference: dominance of distributions in place of pairs."
    ),
    use_when=(
        "Pairs are noisy one by one but right in distribution, and micro-batches can be large (16 rows and "
        "more)."
    ),
    failure_signs=(
        "Same curve as DPO: the micro-batch is too small. Results change with the number of devices: hold "
        "per_device_train_batch_size fixed."
    ),
    defaults={"beta": 0.01},
)
