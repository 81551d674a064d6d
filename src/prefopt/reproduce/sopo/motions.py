"""Arms of `prefopt reproduce sopo` in the motion world: runs of `prefopt train`, and what is measured of them.

All arms start from one pretrained model, which learned from captions of which some had sides and directions exchanged, and see the same
motions with right captions. A seed has its own order of training, timesteps, noise and samples. Arms differ in what `ARMS` says of them, the
control in that it draws nothing.

Legend: K candidates, B examples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from prefopt.reproduce import runs
from prefopt.sources.selection import select
from prefopt.worlds.motion.measures import Accuracy, Measures
from prefopt.worlds.motion.world import MotionWorld

BASE = "base"
SFT = "SFT (control)"
SFT_LONGER = "SFT, 4 times the updates"
OFFLINE = "offline DPO"
OFFLINE_DATA = "offline DPO, winners from data"
ONLINE = "online DPO"
NAIVE = "naive combination"
DSOPO = "DSoPo"
NO_VETO = "SoPo without veto"
USOPO = "USoPo"
SOPO = "SoPo"
REUSED = "SoPo, candidates used 4 times"
QUANTILES = (0.1, 0.25, 0.5, 0.75, 1.0)
CANDIDATES = (1, 2, 4)
MOST = 8
"""Candidates of which losers are compared, without training on them."""


def at_quantile(q: float) -> str:
    """Name of SoPo with tau at a quantile.

    >>> at_quantile(0.25)
    'tau at 25 %'
    """
    return f"tau at {q:.0%}".replace("%", " %")


def with_candidates(k: int) -> str:
    """Name of SoPo with so many candidates.

    >>> with_candidates(8)
    'K = 8'
    """
    return f"K = {k}"


SHARED: dict[str, Any] = {
    "learning_rate": 2e-4,
    "lr_scheduler_type": "constant",
    "optim": "adamw",
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "gradient_accumulation_steps": 1,
    "num_inference_steps": 20,
    "guidance_scale": 1.0,
}
"""Of every arm."""
DRAWN: dict[str, Any] = {
    "method": "sopo",
    "beta": 1.0,
    "C": 2.0,
    "candidates": 2,
    "candidate_steps": 10,
    "candidate_guidance_scale": 1.0,
    "tau_quantile": 0.5,
    "similarity": "cosine_01",
    "error_scale": "steps",
}
"""Of every arm but the control."""
PLAIN = {"variant": "dsopo"}
METHODS: dict[str, dict[str, Any]] = {
    SFT: {"method": "sft"},
    SFT_LONGER: {"method": "sft"},
    OFFLINE: {"pairs": "offline", **PLAIN},
    OFFLINE_DATA: {"pairs": "offline_data", **PLAIN},
    ONLINE: {"pairs": "online", **PLAIN},
    NAIVE: {"pairs": "naive", **PLAIN},
    DSOPO: PLAIN,
    NO_VETO: {"variant": "sopo_no_filter"},
    USOPO: {"variant": "usopo"},
    SOPO: {},
}
"""What each arm of the main table does otherwise, by its name."""
REUSE, LONGER = 4, 4
SWEEPS: dict[str, dict[str, Any]] = {
    **{at_quantile(q): {"tau_quantile": q} for q in QUANTILES if q != DRAWN["tau_quantile"]},
    **{with_candidates(k): {"candidates": k} for k in CANDIDATES if k != DRAWN["candidates"]},
    REUSED: {"reuse_candidates": REUSE},
}
"""SoPo with one setting changed."""
ARMS = METHODS | SWEEPS


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    rows: int = 1024
    """Motions to train on, the first ones of those that the model was pretrained on."""
    updates: int = 100
    batch: int = 32
    motions: int = 640
    """Made to measure a model."""
    drawn_for: int = 128
    """Captions for which losers of 1 to 8 candidates are compared."""
    world: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the world beside its seed."""


QUICK = Size(
    rows=12, updates=4, batch=4, motions=69, drawn_for=12,
    world={"width": 16, "layers": 1, "pretrain_motions": 150, "pretrain_steps": 12, "pretrain_batch_size": 16, "scorer_steps": 6},
)  # fmt: skip
"""Only shows that everything runs: nothing has learned anything, and of so few captions no judge must recognise any."""


class Trained(NamedTuple):
    """One run.

    Attributes:
        measures: after the last update.
        seconds: processor time of its updates.
        drawing: of these, for drawing candidates and scoring them.
        logs: means over the run of what the method logs.
    """

    measures: Measures
    seconds: float
    drawing: float
    logs: dict[str, float]


class Start(NamedTuple):
    """What is true before any training.

    Attributes:
        measures: of the pretrained model.
        reward: how surely the reward tells right captions from wrong ones.
        losers: mean reward of the worst of K samples of the model, by K; the first K of the same eight.
    """

    measures: Measures
    reward: Accuracy
    losers: dict[int, float]


def world_of(size: Size) -> MotionWorld:
    """The world of all seeds."""
    return MotionWorld(**size.world)


def prepare(size: Size) -> None:
    """Train model, reward and evaluator, unless they are cached."""
    world = world_of(size)
    world.model_dir(progress=False)
    world.scorer_dir("reward", progress=False)
    world.scorer_dir("evaluator", progress=False)


def rows_of(world: MotionWorld, n: int) -> list[dict[str, Any]]:
    """The first motions of the pretraining, with what they really do."""
    motions = world.reference_motions(n)
    return [
        {"id": f"motion-{k}", "prompt": caption, "motion": features.numpy()}
        for k, (caption, features) in enumerate(zip(motions.captions, motions.features_BFD, strict=True))
    ]


def options_of(name: str, size: Size) -> dict[str, Any]:
    """The configuration of an arm, but for model, data, judge and seed."""
    own = ARMS[name]
    options = SHARED | ({} if "method" in own else DRAWN) | own
    updates = size.updates * (LONGER if name == SFT_LONGER else 1)
    steps = max(1, updates // options.get("reuse_candidates", 1))
    return options | {"max_steps": steps, "per_device_train_batch_size": size.batch}


def run_of(options: dict[str, Any], seed: int, size: Size) -> Any:
    """A run as a context: `prefopt train` on motions in memory, nothing held out."""
    world = world_of(size)
    if options["method"] == "sopo":
        options = options | {"judge": f"retrieval:{world.scorer_dir('reward', progress=False)}"}
    model = str(world.model_dir(progress=False))
    return runs.on_rows(rows_of(world, size.rows), model=model, seed=seed, **options)


def train(name: str, seed: int, size: Size) -> Trained | Start:
    """One arm's run, or what is true of the model that all start from."""
    if name == BASE:
        return start_of(seed, size)
    with run_of(options_of(name, size), seed, size) as course:
        loop, whole, drawing = course.loop, Stopwatch(), Stopwatch()
        collector = getattr(loop.feed, "collector", None)
        if collector is not None:
            collector.drawn = drawing.around(collector.drawn)
        whole.around(loop.fit)(lambda: None)
        measures = world_of(size).measured(course.setup.policy.pipe, size.motions, progress=False)
        return Trained(measures, whole.seconds, drawing.seconds, loop.train_metrics())


def start_of(seed: int, size: Size) -> Start:
    """The pretrained model, the reward, and losers of more and more candidates."""
    world = world_of(size)
    measures = world.measured(world.pipeline(progress=False), size.motions, progress=False)
    with run_of(options_of(SOPO, size) | {"candidates": MOST}, seed, size) as course:
        collector, model = course.loop.feed.collector, course.loop.model
        shown = [course.setup.likelihood.shown(e, 0) for e in course.setup.data.train[: size.drawn_for]]
        model.eval()
        _, reward_KB = collector.drawn(model, [e.items[0] for e in shown], [e.id for e in shown], 0)
    accuracy = world.accuracy(world.scorer("reward", progress=False))
    return Start(measures, accuracy, losers_of(reward_KB))


def losers_of(reward_KB: Tensor) -> dict[int, float]:
    """Mean reward of the worst of the first K candidates, by K."""
    return {k: float(select(reward_KB[:k]).worst_reward_B.mean()) for k in (*CANDIDATES, MOST)}


@dataclass(slots=True)
class Stopwatch:
    """Processor time of what it times."""

    seconds: float = 0.0

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, timed."""

        def timed(*args: Any) -> Any:
            began = time.process_time()
            try:
                return work(*args)
            finally:
                self.seconds += time.process_time() - began

        return timed


def jobs(seeds: Sequence[int], size: Size) -> list[tuple[str, int, Size]]:
    """What is run by itself, the longest first."""
    costly = [with_candidates(max(CANDIDATES)), NAIVE]
    cheap = [BASE, SFT, SFT_LONGER, REUSED]
    names = [*costly, *(name for name in ARMS if name not in (*costly, *cheap)), *cheap]
    return [(name, seed, size) for name in names for seed in seeds]
