"""The same held-out wishes, asked in other ways: what a recommender is worth when the words are fewer, other or misspelt.

A kind rewrites the texts; the right items, histories and rows go along. Only somebody's own words are rewritten, never a text
that was written from a history, and a query of which nothing is left is left out.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bertrec.catalogue import values
from bertrec.errors import InvalidInput
from train.augmentation.misspelling import misspelt
from train.augmentation.synonyms import Synonyms
from train.augmentation.words import shuffled, with_synonyms
from train.data import Dataset
from train.examples import OWN_TEXT, Pairs, cleaned

TYPO_RATE = 0.1
"""Share of the words of four letters or more that get an error in ``typos``."""
SYNONYM_RATE = 0.2
"""Share of the words with a synonym that are replaced in ``synonyms``."""
MASK = "item"

# What reviewers call clothes; the classes of the bundled data and their close synonyms; either number will do.
GARMENTS = (
    "anorak bikini blazer blouse bodysuit bottoms bra bralette cami camisole capri cardigan chemise chino coat coverup culotte "
    "dress fleece frock gown henley hoodie hosiery jacket jeans jegging jumper jumpsuit kaftan kimono knit knitwear legging "
    "lingerie loungewear nightgown onesie outerwear overall pajama pants panty parka peacoat polo poncho pullover pyjama robe "
    "romper sarong shift shirt shirtdress shorts shrug skirt skort slacks sleepwear slip sock stocking sundress sweater "
    "sweatpants sweatshirt swimsuit swimwear tank tee tights top tracksuit trench trouser tunic turtleneck underwear vest wrap"
).split() + ["cover up", "pj", "swim suit", "sweat shirt", "t shirt", "tank top"]
_PLURAL_ONLY = ("bottoms", "shorts", "slacks", "tights")
"""Their singular is another word: ``too short and tight at the bottom`` names no garment."""
CLASS_HINTS = ("denim", "swim", "sleep", "lounge", "layer")
"""Words that are no garment and yet give its class away."""
COLOURS = (
    "beige black blue brown burgundy camel charcoal coral cream gold gray green grey ivory lavender maroon mauve mint mustard "
    "navy olive orange peach pink plum purple red rust silver tan taupe teal turquoise white yellow"
).split()
FABRICS = (
    "cashmere chiffon corduroy cotton crepe denim embroidered flannel jersey knit lace leather linen merino mesh rayon satin "
    "sequin silk suede tweed velvet wool"
).split()
FITS = (
    "baggy boxy comfortable cozy cropped fitted flared flattering flowy lightweight loose oversized petite relaxed roomy sheer "
    "short skinny sleeveless slim straight stretchy structured swingy tailored tight warm"
).split()
OCCASIONS = (
    *"beach church everyday holiday office party spring summer travel vacation wedding weekend winter".split(),
    *("the fall", "date night", "night out", "for work", "to work"),
)

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True)
class QueryContext:
    """What a kind may look at besides the texts.

    attribute: the primary one, or None. seed: of what is drawn. synonyms: word → others of its meaning; without any, nobody asks
    in other words.
    """

    dataset: Dataset
    attribute: str | None
    seed: int
    synonyms: Synonyms = field(default_factory=dict)

    def random(self, row: int) -> np.random.Generator:
        """The random numbers of a query, by the row it came from."""
        return np.random.default_rng((self.seed, row))

    def has_words(self, row: int) -> bool:
        """Whether a query came from an interaction with words of its own."""
        return row != OWN_TEXT and bool(self.dataset.interactions[row].text)


Kind = Callable[[Pairs, QueryContext], Pairs]


def as_written(queries: Pairs, context: QueryContext) -> Pairs:
    """The queries as they are."""
    return queries


def class_masked(queries: Pairs, context: QueryContext) -> Pairs:
    """The words that give the class away replaced by ``item``.

    They are the values of the primary attribute and of ``department`` in the singular and the plural; for clothing also what
    reviewers call garments.
    """
    giving_away = [*_declared(context), *((*GARMENTS, *CLASS_HINTS) if _sells_clothes(context) else ())]
    if not giving_away:
        return queries.take(np.zeros(0, np.int64))
    pattern = _any_of(form for phrase in giving_away for form in _forms(phrase))
    return _rewritten(queries, context, lambda text, _: pattern.sub(MASK, text))


def headline(queries: Pairs, context: QueryContext) -> Pairs:
    """The headline alone, for those that have one."""
    return _rewritten(queries, context, lambda _, row: context.dataset.interactions[row].headline)


def wish(queries: Pairs, context: QueryContext) -> Pairs:
    """``I want a blue cotton dress for summer.``, of the words that the text itself uses; for clothing only.

    The garment is the one that the text names most often, the earliest of several; the right item's own class is not looked at.
    """
    if not _sells_clothes(context):
        return queries.take(np.zeros(0, np.int64))
    return _rewritten(queries, context, lambda text, _: _wish(text))


def typos(queries: Pairs, context: QueryContext) -> Pairs:
    """An error in ``TYPO_RATE`` of the words of four letters or more, drawn by the seed and the query's row.

    A letter between the first and the last is swapped with the next, dropped, doubled or replaced by a neighbour on the keyboard,
    each as often as the others (Pruthi et al., 2019).
    """
    return _rewritten(queries, context, lambda text, row: misspelt(text, context.random(row), TYPO_RATE))


def synonyms(queries: Pairs, context: QueryContext) -> Pairs:
    """``SYNONYM_RATE`` of the words that have a synonym replaced by one of theirs, drawn by the seed and the query's row."""
    if not context.synonyms:
        return queries.take(np.zeros(0, np.int64))
    return _rewritten(
        queries, context, lambda text, row: with_synonyms(text, context.random(row), SYNONYM_RATE, context.synonyms)
    )


def word_order(queries: Pairs, context: QueryContext) -> Pairs:
    """The words of every sentence in another order, drawn by the seed and the query's row (Pham et al., 2021)."""
    return _rewritten(queries, context, lambda text, row: shuffled(text, context.random(row)))


SYNONYMS = "synonyms"
KINDS: Mapping[str, Kind] = {
    "as-written": as_written,
    "class-masked": class_masked,
    "headline": headline,
    "wish": wish,
    "typos": typos,
    SYNONYMS: synonyms,
    "word-order": word_order,
}


def chosen_kinds(names: Sequence[str]) -> list[str]:
    """The kinds of those names, in the order of ``KINDS``; ``all`` names every one. Raises InvalidInput for an unknown one."""
    unknown = [name for name in names if name not in KINDS and name != "all"]
    if unknown or not names:
        raise InvalidInput(f"queries are {', '.join(unknown) or 'none'!r}; accepted are all, {', '.join(KINDS)}")
    return [name for name in KINDS if name in names or "all" in names]


def _rewritten(queries: Pairs, context: QueryContext, rewrite: Callable[[str, int], str]) -> Pairs:
    """The queries with words of their own, rewritten from text and row, without those of which nothing is left."""
    asked = zip(queries.texts, queries.rows.tolist(), strict=True)
    texts = [cleaned(rewrite(text, row)) if context.has_words(row) else "" for text, row in asked]
    kept = np.flatnonzero([bool(text) for text in texts])
    return dataclasses.replace(queries, texts=texts).take(kept)


def _declared(context: QueryContext) -> list[str]:
    """The values of the attributes that say what an item is, lower-cased, ``TextEditor`` as two words."""
    names = {"department", context.attribute or "department"}
    joined = {item.attributes[name] for item in context.dataset.items for name in names if name in item.attributes}
    return sorted({" ".join(re.findall(r"[^\W_]+", _CAMEL.sub(" ", value))).lower() for text in joined for value in values(text)})


def _sells_clothes(context: QueryContext) -> bool:
    return bool({_singular(value) for value in _declared(context)} & {_singular(garment) for garment in GARMENTS})


def _singular(word: str) -> str:
    if word in _PLURAL_ONLY:
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    if re.search(r"(ss|x|ch|sh)es$", word):
        return word[:-2]
    return word[:-1] if re.search(r"[^su]s$", word) else word


def _forms(phrase: str) -> set[str]:
    """The phrase with its last word in the singular and in the plural."""
    one = _singular(phrase)
    if one in _PLURAL_ONLY:
        return {one}
    many = f"{one[:-1]}ies" if re.search(r"[^aeiou]y$", one) else f"{one}es" if re.search(r"(s|x|ch|sh)$", one) else f"{one}s"
    return {phrase, one, many}


def _any_of(phrases: Iterable[str]) -> re.Pattern[str]:
    """Any of the phrases as whole words, the longest first, their words apart by spaces, hyphens or nothing."""
    longest_first = sorted(set(phrases), key=lambda phrase: (-len(phrase), phrase))
    found = "|".join(r"[\s-]?".join(re.escape(word) for word in phrase.split()) for phrase in longest_first)
    return re.compile(rf"(?<![^\W_])(?:{found})(?![^\W_])", re.IGNORECASE)


_FIND_GARMENT = _any_of(form for garment in GARMENTS for form in _forms(garment))
_FIND_COLOUR, _FIND_FABRIC, _FIND_OCCASION = _any_of(COLOURS), _any_of(FABRICS), _any_of(OCCASIONS)
_FIND_FIT = re.compile(rf"(?<!not )(?<!too )(?<!n't ){_any_of(FITS).pattern}", re.IGNORECASE)  # a complaint is no wish


def _wish(text: str) -> str:
    """The wish that the text amounts to; empty where it names no garment."""
    named = [found.lower() for found in _FIND_GARMENT.findall(text)]
    if not named:
        return ""
    often = Counter(_singular(found) for found in named)
    garment = next(found for found in named if often[_singular(found)] == max(often.values()))
    described = [_FIND_FIT.findall(text)[:2], _FIND_COLOUR.findall(text)[:1], _FIND_FABRIC.findall(text)[:1]]
    phrase = " ".join(dict.fromkeys([*(word.lower() for words in described for word in words), garment]))
    article = "" if re.search(r"[^s]s$", garment) else "an " if phrase[0] in "aeiou" else "a "
    occasion = _FIND_OCCASION.search(text)
    purpose = f" for {re.sub('^(for|to) ', '', occasion[0].lower())}" if occasion else ""
    return f"I want {article}{phrase}{purpose}."
