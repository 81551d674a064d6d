"""What page and card of a run on text say."""

from __future__ import annotations

from prefopt.modalities.text.report.curves import TEXT_GROUPS
from prefopt.modalities.text.report.findings import quality
from prefopt.modalities.text.report.first_pair import first_pair
from prefopt.modalities.text.report.loading import auto_class, loading
from prefopt.modalities.text.report.summary import figures
from prefopt.report.account import Account, CardFront, Loading, Measure
from prefopt.report.curves import Groups
from prefopt.report.facts import Figure, Finding
from prefopt.report.format import number, percent
from prefopt.report.load import Run
from prefopt.report.page import Section


class TextAccount(Account):
    """Answers, their tokens, and the distance to the reference."""

    samples_word = "answers"
    samples_title = "What the model writes"
    giveaway = "length or a marker"

    def curves(self, run: Run) -> Groups:
        """See `curves.py`."""
        return TEXT_GROUPS

    def first_pair(self, run: Run) -> Section:
        """See `first_pair.py`."""
        return first_pair(run)

    def figures(self, run: Run) -> list[Figure]:
        """See `summary.py`."""
        return figures(run)

    def reward_of_samples(self, run: Run) -> tuple[str, str]:
        """Rewards of text come from a verifier."""
        return "Verifier reward", "exact score of sampled answers"

    def claim(self, run: Run) -> str:
        """What accuracy says."""
        return "The policy ranks the better answer higher"

    def quality(self, run: Run) -> list[Finding]:
        """See `findings.py`."""
        return quality(run)

    def loading(self, run: Run) -> Loading:
        """See `loading.py`."""
        return loading(run)

    def front(self, run: Run) -> CardFront:
        """Models that the hub knows how to write with."""
        return CardFront("text-generation" if auto_class(run) == "AutoModelForCausalLM" else "")

    def measures(self, run: Run, split: str, place: str) -> list[Measure]:
        """Lines of the card's table of results."""
        return [
            ("reward", "eval", "Verifier reward of sampled answers", number),
            ("kl", "eval", "KL to the reference, nats a sequence", number),
            ("loss", split, f"Loss, {place}", number),
            ("rewards/margins", split, f"Reward margin, {place}", number),
            ("displacement", split, "Displacement (share of chosen answers less likely than under the reference)", percent),
            ("sample_length", "eval", "Length of sampled answers, tokens", number),
        ]  # fmt: skip


ACCOUNT = TextAccount()
