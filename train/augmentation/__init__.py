"""Training texts with other words, or the same words otherwise: what a text means stays, and how it is said varies."""

from train.augmentation.augmenter import Augmenter
from train.augmentation.settings import Augmentation, AugmentationSettings
from train.augmentation.synonyms import Synonyms, fit_synonyms, token_vectors
from train.augmentation.wordnet import found_wordnet

__all__ = ["Augmentation", "AugmentationSettings", "Augmenter", "Synonyms", "fit_synonyms", "found_wordnet", "token_vectors"]
