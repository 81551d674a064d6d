"""Objects that a text names: words of a vocabulary, singular or plural, the longest phrase first.

The rules are few and need no language model. Case, hyphens and a possessive 's do not matter. From each place the longest
phrase of the vocabulary is taken, so that "hot dog" is no dog; its last word may be a plural. A plural is a word of which
one of these is in the vocabulary: the word without -s, without -es, with -y for -ies, -f or -fe for -ves, -man for -men, or
the singular of one of eight irregular plurals. What stands in the vocabulary itself is never changed. The rules know no
grammar: "no dog" mentions a dog, and a verb that is spelt like an object counts as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prefopt.evaluation.benchmarks.base import read_json

IRREGULAR = {
    "men": "man", "people": "person", "children": "child", "feet": "foot", "teeth": "tooth", "geese": "goose", "mice": "mouse",
    "oxen": "ox",
}  # fmt: skip
ENDINGS = (("s", ""), ("es", ""), ("ies", "y"), ("ves", "fe"), ("ves", "f"), ("men", "man"))
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def words_of(text: str) -> list[str]:
    """Words in small letters, hyphens apart, without possessive 's.

    Example:
        >>> words_of("The dog’s fire-hydrant.")
        ['the', 'dog', 'fire', 'hydrant']
    """
    found = WORD.findall(text.lower().replace("’", "'"))
    return [word.removesuffix("'s") for word in found]


def singulars(word: str) -> Iterator[str]:
    """A word, and what it may be the plural of.

    Example:
        >>> list(singulars("buses"))
        ['buses', 'buse', 'bus']
    """
    yield word
    if word in IRREGULAR:
        yield IRREGULAR[word]
    for plural, singular in ENDINGS:
        stem = word.removesuffix(plural)
        if stem != word and len(stem) > 1:
            yield stem + singular


class Vocabulary:
    """Words and phrases, and the class that each stands for.

    Args:
        classes: class by word or phrase. A phrase with the class None is no object, and hides those within it ("home plate").

    Raises:
        ValueError: no words, a word without letters, or two classes of words that differ in case or hyphens alone.

    Example:
        >>> vocabulary = Vocabulary({"dog": "dog", "puppy": "dog", "hot dog": "hot dog"})
        >>> vocabulary.mentions("Two puppies, a dog and hot dogs.")
        ['puppy', 'dog', 'hot dog']
    """

    def __init__(self, classes: Mapping[str, str | None]) -> None:
        self._classes: dict[str, str | None] = {}
        for phrase, name in classes.items():
            key = " ".join(words_of(phrase))
            if not key:
                raise ValueError(f"{phrase!r} is no word: needed letters or digits")
            if self._classes.setdefault(key, name) != name:
                raise ValueError(
                    f"{key!r} stands for {self._classes[key]!r} and for {name!r}: needed one class a word"
                )
        if not self._classes:
            raise ValueError("the vocabulary has no words: needed words and their classes")
        self._longest = max(key.count(" ") + 1 for key in self._classes)

    def mentions(self, text: str) -> list[str]:
        """Words and phrases of the vocabulary in a text, in the singular, in order, as often as they occur."""
        words = words_of(text)
        found = []
        place = 0
        while place < len(words):
            for length in range(min(self._longest, len(words) - place), 0, -1):
                phrase = self._known(words[place : place + length])
                if phrase is not None:
                    if self._classes[phrase] is not None:
                        found.append(phrase)
                    place += length
                    break
            else:
                place += 1
        return found

    def class_of(self, phrase: str) -> str | None:
        """The class that a word or phrase stands for; None where it is not in the vocabulary."""
        known = self._known(words_of(phrase))
        return None if known is None else self._classes[known]

    def classes(self, mentions: Iterable[str]) -> list[str]:
        """The class of each mention; what is not in the vocabulary is left out."""
        return [name for name in map(self.class_of, mentions) if name is not None]

    def _known(self, words: list[str]) -> str | None:
        """The phrase of the vocabulary that words are, the last one perhaps in the plural."""
        if not words:
            return None
        *first, last = words
        phrases = (" ".join((*first, singular)) for singular in singulars(last))
        return next((phrase for phrase in phrases if phrase in self._classes), None)


def read_vocabulary(path: Path) -> Vocabulary:
    """Read words and classes.

    Args:
        path: a .json file, an object of class by word (null hides a phrase); or lines of synonyms, separated by commas, of
            which the first is the class, as the list of the original CHAIR has them.

    Raises:
        ValueError: other content.
        OSError: the file is not there.
    """
    if path.suffix == ".json":
        content = read_json(path)
        if not isinstance(content, dict) or not all(isinstance(v, str | None) for v in content.values()):
            raise ValueError(f"{path} is no vocabulary: needed an object of class by word")
        return Vocabulary(content)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give the path of a file that is there")
    classes: dict[str, str | None] = {}
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        names = [name.strip() for name in line.split(",") if name.strip()]
        for name in names:
            if classes.setdefault(name, names[0]) != names[0]:
                raise ValueError(
                    f"{path}, line {number}: {name!r} stands for {names[0]!r}, and above for {classes[name]!r}: needed one class"
                )
    return Vocabulary(classes)
