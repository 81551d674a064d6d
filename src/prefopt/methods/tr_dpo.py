"""TR-DPO lets the reference follow the policy, instead of holding it to the model that it began as.

The loss is `dpo`'s; the reference moves every `reference_sync_steps` (tau) steps:

```text
loss = -log sigma(beta [log pi(y_w)/pi_ref(y_w) - log pi(y_l)/pi_ref(y_l)])
pi_ref <- alpha pi + (1 - alpha) pi_ref          weights; alpha = reference_mixup_alpha, 1 is a hard update
```

Rewards, margins and losses are against the reference as it is at that step, so they fall at each move. `kl` stays the distance to
the model that the run began with, and compares with other runs; `kl_to_reference` is that to the reference as it is.

A moving reference is a copy in memory: its scores cannot be cached. With adapters, it is the merged weights that are mixed, since
the product of two mixed factors would be no mixture. Checkpoints hold the reference, so that a resumed run is the same run.

## Relations

Any method with a reference moves it with `sync_reference=true` (TR-IPO, TR-KTO). TRL calls the keys `sync_ref_model`,
`ref_model_mixup_alpha` and `ref_model_sync_steps`, with the same defaults, and refuses adapters. The rounds of `ssapo` with
`train_reference=previous` are hard updates between rounds.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="tr_dpo",
    title="Trust-region DPO",
    modality="any",
    objective="dpo",
    paper=Paper(
        title="Learn Your Reference Model for Real Good Alignment",
        authors="Alexey Gorbatovski, others",
        year=2024,
        arxiv="2404.09656",
    ),
    summary="DPO whose reference is moved towards the policy every so many steps.",
    use_when="Margins keep growing while samples get worse under DPO, or a policy is to go further from where it began.",
    failure_signs=(
        "`kl` grows without end and samples degrade: the reference follows too closely; lower reference_mixup_alpha or raise "
        "reference_sync_steps. The curve is DPO's: the reference hardly moves; the other way round."
    ),
    defaults={"beta": 0.1, "learning_rate": 1e-06, "sync_reference": True},
)
