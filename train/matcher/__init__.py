"""The matcher: a cross-encoder over a text and an item, and over a text alone."""

from train.matcher.fit import fit_matcher
from train.matcher.network import Matcher, load_matcher
from train.matcher.settings import MatcherSettings

__all__ = ["Matcher", "MatcherSettings", "fit_matcher", "load_matcher"]
