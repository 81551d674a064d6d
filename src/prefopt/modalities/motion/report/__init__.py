"""What page and card of a run on motions say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any, ClassVar

from markupsafe import Markup

from prefopt.modalities.motion.report import samples, summary
from prefopt.modalities.motion.report.curves import MARGIN_UNIT, groups
from prefopt.modalities.motion.report.findings import quality
from prefopt.modalities.motion.report.loading import INDEX, is_lora, loading
from prefopt.motion.lora import LORA_FILE
from prefopt.report import semi_online
from prefopt.report.account import Account, CardFront, DataFacts, Drawn, Loading, Measure
from prefopt.report.curves import Groups
from prefopt.report.denoising import OF_SEQUENCES, as_errors
from prefopt.report.facts import Figure, Finding
from prefopt.report.format import number
from prefopt.report.load import Run
from prefopt.report.loading import read_json
from prefopt.report.page import Section


class MotionAccount(Account):
    """Motions, denoising errors in place of log-probabilities, losers that are sampled while training."""

    samples_word: ClassVar[str] = "motions"
    samples_title: ClassVar[str] = "How the model moves"
    samples_first: ClassVar[bool] = True  # a motion says more than its curves
    giveaway: ClassVar[str] = "smoothness or where the motions come from"
    noisy_loss: ClassVar[bool] = True  # noise levels drawn anew hide it
    margin_unit: ClassVar[str] = MARGIN_UNIT
    pictures_told: ClassVar[str] = (
        "Poses along time, of motions for the same prompts from the same noise (the figure's left limbs are blue)"
    )
    records: ClassVar[Mapping[str, str]] = {"calibration": "how well the judge knows the data, and tau"}
    hyper_parameters: ClassVar[Sequence[str]] = (
        "prompt_dropout", "timestep_density", "error_weight", "error_scale", "judge", "variant", "pairs", "C", "tau", "tau_quantile",
        "similarity", "candidates", "candidate_steps", "candidate_guidance_scale", "reuse_candidates", "num_inference_steps",
        "guidance_scale",
    )  # fmt: skip

    def recognises(self, run: Run) -> bool:
        """Whether a folder without a manifest holds motions, or a model of them."""
        model = run.folder / "model"
        known = read_json(model / INDEX).get("_class_name") == "MotionPipeline"
        return known or (model / LORA_FILE).is_file() or isinstance(run.data.get("motions"), Mapping)

    def prepared(self, run: Run) -> Run:
        """With errors for log-probabilities, without what means nothing for motions."""
        metrics = as_errors(run.metrics.without(OF_SEQUENCES))
        return replace(run, metrics=semi_online.without_echoes(metrics))

    def own_style(self) -> str:
        """See `style.css` among the templates."""
        return (files(__name__) / "templates" / "style.css").read_text("utf-8")

    def own_script(self) -> str:
        """See `player.js` among the templates."""
        return (files(__name__) / "templates" / "player.js").read_text("utf-8")

    def curves(self, run: Run) -> Groups:
        """See `curves.py`."""
        return groups(run)

    def samples(self, run: Run) -> Markup:
        """Figures before and after."""
        return samples.samples(run)

    def first_pair(self, run: Run) -> Section:
        """Both motions, or the one of a single."""
        return samples.first_pair(run)

    def data_facts(self, run: Run) -> DataFacts:
        """Numbers and lengths of motions."""
        return samples.data_facts(run)

    def figures(self, run: Run) -> list[Figure]:
        """See `summary.py`."""
        return summary.figures(run)

    def reward_of_samples(self, run: Run) -> tuple[str, str]:
        """Rewards of motions come from a scorer."""
        return "Reward of samples", summary.scored_by(run)

    def claim(self, run: Run) -> str:
        """What accuracy says."""
        return summary.preference(run)

    def sentence(self, run: Run) -> str:
        """What became of the losers."""
        return semi_online.sentence(run)

    def quality(self, run: Run) -> list[Finding]:
        """See `findings.py`."""
        return quality(run)

    def loading(self, run: Run) -> Loading:
        """See `loading.py`."""
        return loading(run)

    def front(self, run: Run) -> CardFront:
        """Tags for the hub, which has no task of this name."""
        return CardFront("", ["text-to-motion", *(["lora"] if is_lora(run) else [])])

    def data_rows(self, run: Run) -> list[tuple[str, Any]]:
        """How many motions and captions there are."""
        rows = [
            ("Motions", run.of("data", "motions", "count")),
            ("Captions", run.of("data", "motions", "captions")),
        ]
        return [(name, number(n)) for name, n in rows if n is not None]

    def measures(self, run: Run, split: str, place: str) -> list[Measure]:
        """See `summary.py`."""
        return summary.measures(run, split, place)

    def pictures(self, run: Run) -> list[Drawn]:
        """Poses along time."""
        return samples.pictures(run)


ACCOUNT = MotionAccount()
