"""Captions as the T2M evaluator reads them: words with their parts of speech, as HumanML3D and KIT-ML write them behind a caption.

    a/DET person/NOUN walk/VERB forward/ADV

Words outside the vocabulary are all the same; some words that motions are told by have a class of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TAGS = (
    *("VERB", "NOUN", "DET", "ADP", "NUM", "AUX", "PRON", "ADJ", "ADV"),
    *("Loc_VIP", "Body_VIP", "Obj_VIP", "Act_VIP", "Desc_VIP", "OTHER"),
)
"""Parts of speech in the order in which the released weights have them; OTHER stands for all that are not here."""
MOST_WORDS = 20
"""Words of a caption that count, start and end aside."""

CLASSES = {
    "Loc_VIP": "left right clockwise counterclockwise anticlockwise forward back backward up down straight curve",
    "Body_VIP": "arm chin foot feet face hand mouth leg waist eye knee shoulder thigh",
    "Obj_VIP": "stair dumbbell chair window floor car ball handrail baseball basketball",
    "Act_VIP": "walk run swing pick bring kick put squat throw hop dance jump turn stumble stop sit lift lower raise wash stand "
    "kneel stroll rub bend balance flap jog shuffle lean rotate spin spread climb",
    "Desc_VIP": "slowly carefully fast careful slow quickly happy angry sad happily angrily sadly",
}
CLASS_OF = {word: name for name, words in CLASSES.items() for word in words.split()}
START, END, UNKNOWN = "sos", "eos", "unk"


def words_and_tags(caption: str, vocabulary: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """Numbers of a caption's words and of their tags, start and end included: as many as the caption truly has.

    Args:
        caption: tagged, see the top of the file.
        vocabulary: number of each word; must have "unk".

    Raises:
        ValueError: a word without a tag, or no words.

    Example:
        >>> words_and_tags("walk/VERB", {"unk": 0, "walk": 1, "sos": 2, "eos": 3})
        ([2, 1, 3], [14, 12, 14])
    """
    pairs = [piece.rpartition("/")[::2] for piece in caption.split()]
    if not pairs or not all(word and tag for word, tag in pairs):
        raise ValueError(
            f"the text {caption[:60]!r} has no parts of speech, which this evaluator reads: needed 'a/DET person/NOUN walk/VERB', as "
            "in the text files of HumanML3D and KIT-ML; give it so, or put it into the evaluator's `tagged` under the caption"
        )
    pairs = [(START, "OTHER"), *pairs[:MOST_WORDS], (END, "OTHER")]
    words, tags = [], []
    for word, tag in pairs:
        known = word in vocabulary
        words.append(vocabulary[word if known else UNKNOWN])
        tag = CLASS_OF.get(word, tag) if known else "OTHER"
        tags.append(TAGS.index(tag if tag in TAGS else "OTHER"))
    return words, tags


def tagged_captions(captions: Sequence[str], tagged: Mapping[str, str]) -> list[str]:
    """Captions, those that are known by their tagged form in it."""
    return [tagged.get(caption, caption) for caption in captions]
