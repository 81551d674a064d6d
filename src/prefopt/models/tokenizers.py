"""Tokenizers: load one, and say whether two of them mean the same by their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.models.adapters import adapter_shapes, is_embedding
from prefopt.models.loading_report import listed
from prefopt.models.sources import (
    adapter_base,
    check_source,
    config_values,
    remote_code_message,
    whole_model,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


FILES = (
    "tokenizer*.json", "tokenizer.model*", "vocab.*", "merges.txt", "spiece.model", "sentencepiece*.model", "tekken.json",
    "*.tiktoken",
)  # fmt: skip
"""What a folder with a tokenizer holds one of."""


def load_tokenizer(source: str, alone: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id; falls back to an adapter's base model.

    Args:
        source: folder or hub id.
        alone: whether a tokenizer without a model will do.

    Raises:
        FileNotFoundError: no model there.
        ValueError, OSError, KeyError: no tokenizer, or one that needs code of its own.
    """
    if not alone:
        check_source(source)
    try:
        return _load(source)
    except (OSError, ValueError, KeyError):
        base = adapter_base(source)
        if base is None:
            raise
        return _load(base)


def _load(source: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    bare = OSError(
        f"{source} holds no tokenizer: needed tokenizer.json, or the files of another kind of tokenizer, beside the model, "
        "as tokenizer.save_pretrained(folder) writes them"
    )
    folder = Path(source).expanduser()
    if folder.is_dir() and not any(list(folder.glob(pattern)) for pattern in FILES):
        raise bare
    try:
        # not None, the default: it asks on the terminal whether to run the code
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except ValueError as error:
        if "trust_remote_code" in str(error):
            raise ValueError(remote_code_message(f"the tokenizer of {source}")) from None
        raise
    if len(tokenizer.get_vocab()) <= len(tokenizer.get_added_vocab()):
        raise bare  # some classes make up an empty one
    return tokenizer


def check_reference(
    source: str, reference: str, tokenizer: Any, used: Callable[[], Iterable[int]]
) -> str | None:
    """Refuse a reference to which the policy's token ids mean something else.

    Args:
        source: folder or hub id of the policy.
        reference: of the reference.
        tokenizer: the policy's.
        used: gives the ids that both will score.

    Returns:
        A note where the reference comes without a tokenizer, so that only sizes could be compared.

    Raises:
        ValueError: see `check_same_ids`; or the reference has too few embeddings.
    """
    if reference == source:
        return None
    places = embedding_rows(reference)
    try:
        other = load_tokenizer(reference)
    except (OSError, ValueError, KeyError):
        highest = max(tokenizer.get_vocab().values())
        if places is not None and highest >= places:
            raise ValueError(
                f"{reference} has no tokenizer, and embeddings for {places} ids, while the tokenizer of {source} makes ids "
                f"up to {highest}: both models score the same ids; give a reference of the same vocabulary"
            ) from None
        return f"{reference} has no tokenizer: whether token ids mean the same to it could not be compared"
    check_same_ids(tokenizer, other, (source, reference), used, places)
    return None


def check_same_ids(
    one: Any,
    other: Any,
    names: tuple[str, str],
    used: Callable[[], Iterable[int]] = tuple,
    places: int | None = None,
) -> None:
    """Refuse two tokenizers whose ids mean different things: a model's scores of the other's ids say nothing.

    Templates, roles of special tokens and padded embeddings may differ, and tokens that only the second has.

    Args:
        one: tokenizer whose ids are scored.
        other: tokenizer of the model that scores them too.
        names: of both models, for the error.
        used: gives the ids that will be scored for certain.
        places: rows of the second model's embedding.

    Raises:
        ValueError: an id stands for another token, or the second lacks tokens that it may be given.
    """
    mine, theirs = ({i: token for token, i in x.get_vocab().items()} for x in (one, other))
    differ = sorted(i for i in mine.keys() & theirs.keys() if mine[i] != theirs[i])
    missing = mine.keys() - theirs.keys()
    scored = set(used()) if missing else set()
    lacking = sorted(i for i in missing if i in scored or (places is not None and i >= places))
    found = []
    if differ:
        i = differ[0]
        found.append(
            f"{len(differ):,} of {len(mine):,} ids stand for other tokens (id {i} is {mine[i]!r} in the first and "
            f"{theirs[i]!r} in the second)"
        )
    if lacking:
        found.append(f"the second lacks {listed([repr(mine[i]) for i in lacking])}")
    if found:
        raise ValueError(
            f"{names[0]} and {names[1]} have different tokenizers: {'; '.join(found)}. Both models score the same ids, so "
            "these must mean the same to both: give a model of the same vocabulary"
        )


def check_places(tokenizer: Any, source: str, used: Callable[[], Iterable[int]]) -> None:
    """Refuse token ids that the model has no embedding for.

    Args:
        tokenizer: the model's.
        source: folder or hub id of the model.
        used: gives the ids that it will be given.

    Raises:
        ValueError: there are such ids.
    """
    places = embedding_rows(source)
    if places is None or max(tokenizer.get_vocab().values(), default=0) < places:
        return
    beyond = sorted(i for i in set(used()) if i >= places)
    if beyond:
        tokens = listed([f"{tokenizer.convert_ids_to_tokens(i)!r} (id {i})" for i in beyond])
        raise ValueError(
            f"the tokenizer of {source} makes {tokens} of this data, and the model has embeddings for ids below {places}: "
            "enlarge it (model.resize_token_embeddings(len(tokenizer)), then train these tokens) and save both, or take "
            "these tokens out of the tokenizer or the data"
        )


def embedding_rows(source: str) -> int | None:
    """How many tokens a model has embeddings for; None where its files do not say.

    An adapter that was saved with embeddings of its own brings as many as these have.
    """
    if adapter_base(source) is not None:
        own = [shape[0] for name, shape in adapter_shapes(source).items() if is_embedding(name)]
        if own:
            return max(own)
    from transformers import AutoConfig

    base = whole_model(source)
    if not config_values(base):
        return None
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    return getattr(config.get_text_config(), "vocab_size", None)
