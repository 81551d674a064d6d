"""IPO regresses the margin onto a target, so that it stays finite even where every label agrees.

DPO's margin for a pair with a deterministic label has its optimum at infinity, where the KL penalty no
longer counts. IPO replaces the logistic loss by a squared one.

```text
m = log pi(y_w)/pi_ref(y_w) - log pi(y_l)/pi_ref(y_l)        (each log-ratio divided by its length by default)
loss = (m - 1/(2 beta))^2                                     beta is the paper's tau
```

`length_normalize=false` takes sums, as the equation is printed; 1/(2 beta) then means another thing at
every length.

## Relations

`sppo` regresses each side on its own; `cdpo` also has a finite target. beta does not carry over from DPO:
the target margin is 5 nats a token at 0.1.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="ipo",
    title="Identity preference optimization",
    modality="any",
    paper=Paper(
        title="A General Theoretical Paradigm to Understand Learning from Human Preferences",
        authors=(
            "Mohammad Gheshlaghi Azar, Mark Rowland, Bilal Piot, Daniel Guo, Daniele Calandriello, Michal "
            "Valko, Rémi Munos"
        ),
        year=2023,
        arxiv="2310.12036",
        venue="AISTATS 2024",
    ),
    summary="Squared distance of the margin from 1/(2 beta): regularised even where labels never disagree.",
    use_when="Few or one-sided labels on which DPO overfits and drifts.",
    failure_signs=(
        "Loss stays near (1/(2 beta))^2: the target is out of reach; raise beta or the learning rate. `kl` "
        "grows without gain: raise beta."
    ),
    defaults={"beta": 0.1},
)
