"""Prompts with completions of other prompts: what unpaired objectives estimate their reference point from.

KTO (arXiv 2402.01306, section 4.1) takes the mean log-ratio of mismatched pairs for the divergence of policy and
reference. A pair is mismatched only if the completion answers *another* prompt: one to the same prompt is exactly
what training raises or lowers.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from prefopt.comparisons import Encoded
from prefopt.config import ConfigError
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TruncationMode

Prompted = Sequence[tuple[str, Encoded[EncodedText]]]
"""Single labelled samples, each behind a name of its prompt: equal for equal prompts."""


def with_mismatched(
    samples: Prompted,
    max_length: int | None,
    truncation_mode: TruncationMode = "keep_start",
    others: Prompted = (),
) -> list[Encoded[EncodedText]]:
    """Give each sample its prompt followed by a completion to another prompt, as an item beside its own.

    The choice depends on the contents and not on the order of rows. Each completion is used once, as long as no prompt
    has more than half of the rows.

    Args:
        samples: to complete.
        max_length: most tokens.
        truncation_mode: what is cut of more.
        others: where to take completions from too if all `samples` have one prompt.

    Raises:
        ConfigError: there is no other prompt.
    """
    donors = list(samples)
    if len({prompt for prompt, _ in donors}) == 1:
        donors += others
    if len({prompt for prompt, _ in donors}) == 1:
        raise ConfigError(
            f"all {len(donors)} samples answer one prompt, and this objective measures its reference point on "
            "completions of other prompts: give rows with at least two prompts beside those held out (eval_size=0 holds "
            "out none), or take a method for pairs, such as dpo"
        )
    partner = partners([(prompt, e.items[0].ids.tobytes(), e.id) for prompt, e in donors])
    out = []
    for (_, example), k in zip(samples, partner, strict=False):  # donors begin with the samples
        own, other = example.items[0], donors[k][1].items[0]
        whole = own.ids[: own.start] + other.ids[other.start :]
        more = max(0, len(whole) - (max_length or len(whole)))
        cut = more if truncation_mode == "keep_end" else 0
        ids = array("i", whole[cut : cut + len(whole) - more])
        start = max(1, own.start - cut)
        edges = tuple(replace(e, branches={"mismatched": len(example.items)}) for e in example.comparisons)
        out.append(
            replace(
                example,
                aside=(replace(own, ids=ids, start=start, truncated=False, cut=cut, reference=None),),
                comparisons=edges,
            )
        )
    return out


def partners(names: Sequence[tuple[str, bytes, str]]) -> list[int]:
    """For each of some samples the place of one under another prompt.

    Args:
        names: (prompt, sample, id) of each; sorted by these, so that the order of rows does not matter.
    """
    if not names:
        return []
    order = sorted(range(len(names)), key=lambda k: names[k])
    count = Counter(prompt for prompt, *_ in names)
    most, size = max(count, key=lambda prompt: (count[prompt], prompt)), max(count.values())
    found = [0] * len(names)
    if 2 * size <= len(names):
        # samples of a prompt are neighbours: as many places further on, or back at the beginning, is another's
        for place, k in enumerate(order):
            found[k] = order[(place + size) % len(order)]
        return found
    many = [k for k in order if names[k][0] == most]
    few = [k for k in order if names[k][0] != most]
    for mine, theirs in ((many, few), (few, many)):
        for place, k in enumerate(mine):
            found[k] = theirs[place % len(theirs)]
    return found
