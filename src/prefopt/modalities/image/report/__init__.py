"""What page and card of a run on images say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from markupsafe import Markup

from prefopt.modalities.image.report import card, summary
from prefopt.modalities.image.report.curves import groups
from prefopt.modalities.image.report.findings import quality
from prefopt.modalities.image.report.kinds import is_judge, looks_like_images
from prefopt.modalities.image.report.loading import is_lora, loading
from prefopt.modalities.image.report.prepared import prepared
from prefopt.modalities.image.report.sections import data_facts, first_pair, samples
from prefopt.modalities.image.report.timesteps import timestep_figures
from prefopt.report.account import Account, CardFront, DataFacts, Drawn, Loading, Measure
from prefopt.report.curves import Groups
from prefopt.report.facts import Figure, Finding
from prefopt.report.load import Run
from prefopt.report.page import Section


class ImageAccount(Account):
    """Images, denoising errors in place of log-probabilities, collections and judges."""

    samples_word = "images"
    samples_title = "What the model draws"
    samples_first = True  # an image says more than its curves
    giveaway = "sharpness or where the images come from"
    noisy_loss = True  # noise levels drawn anew hide it
    margin_unit = (
        "reward of chosen − reward of rejected"  # of errors, times whatever the method scales them by
    )
    records: ClassVar[Mapping[str, str]] = {
        "timesteps": "accuracy and errors by timestep",
        "calibration": "how well the judge knows the data, and tau",
    }
    hyper_parameters: ClassVar[Sequence[str]] = (
        "resolution", "prompt_dropout", "timestep_density", "error_weight", "clip_eps", "judge", "candidates", "threshold",
        "threshold_rule", "prompts_per_step", "num_inference_steps", "guidance_scale",
    )  # fmt: skip

    def recognises(self, run: Run) -> bool:
        """See `kinds.py`."""
        return looks_like_images(run)

    def prepared(self, run: Run) -> Run:
        """See `prepared.py`."""
        return prepared(run)

    def curves(self, run: Run) -> Groups:
        """See `curves.py`."""
        return groups(run)

    def samples(self, run: Run) -> Markup:
        """The contact sheet."""
        return samples(run)

    def first_pair(self, run: Run) -> Section:
        """Both images, or the one of a single."""
        return first_pair(run)

    def own_sections(self, run: Run) -> list[Section]:
        """Accuracy and errors by noise level."""
        return [Section("timesteps", "By noise level", timestep_figures(run), "Noise levels")]

    def data_facts(self, run: Run) -> DataFacts:
        """Sizes and formats of the images."""
        return data_facts(run)

    def figures(self, run: Run) -> list[Figure]:
        """See `summary.py`."""
        return summary.figures(run)

    def reward_of_samples(self, run: Run) -> tuple[str, str]:
        """Rewards of images come from a scorer."""
        return "Reward of samples", summary.scored_by(run)

    def claim(self, run: Run) -> str:
        """What accuracy says."""
        return summary.preference(run)

    def sentence(self, run: Run) -> str:
        """What happened to the errors, or to the collection."""
        return summary.sentence(run)

    def quality(self, run: Run) -> list[Finding]:
        """See `findings.py`."""
        return quality(run)

    def loading(self, run: Run) -> Loading:
        """See `loading.py`."""
        return loading(run)

    def front(self, run: Run) -> CardFront:
        """What the hub knows how to draw with."""
        if is_judge(run):
            return CardFront()
        lora = ["lora"] if is_lora(run) else []
        return CardFront("text-to-image", ["text-to-image", "diffusers", *lora])

    def data_rows(self, run: Run) -> list[tuple[str, Any]]:
        """How many images there are."""
        count = run.of("data", "images", "count")
        return [] if count is None else [("Images", count)]

    def measures(self, run: Run, split: str, place: str) -> list[Measure]:
        """See `card.py`."""
        return card.measures(run, split, place)

    def pictures(self, run: Run) -> list[Drawn]:
        """See `card.py`."""
        return card.pictures(run)


ACCOUNT = ImageAccount()
