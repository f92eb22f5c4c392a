"""Numbers in texts: the price of an item, and the budget that a wish names.

English ("under $80", "not more than 100", "a budget of 1,200 euros") and Chinese ("50元以下") are read, by patterns: a number
beside words that bound it from above, unless it counts something else ("less than 5 minutes"). Currencies are not told apart, and
numbers in words are not read.
"""

from __future__ import annotations

import re
import unicodedata

_NUMBER = r"\d{1,9}(?:[.,]\d{1,9}){0,3}"  # bounded, so that no text makes the patterns slow
_SIGN = r"(?:us\$|[$€£¥]|usd|eur|gbp|rmb|cny)?"
_FREE = r"(?: (?:to|want|wish|like|spend|spending|pay|paying|cost|costing|go|going|be))*"
_BELOW = (
    r"\b(?:under|below|less than|lower than|cheaper than|within|up to|at most|max(?:imum)?(?: of)?)|"
    r"\bbudget(?: is| of|:| was| around| about)?(?: under| below| at most| up to| less than)?|"
    rf"\b(?:budget|between)(?: is| of|:)? {_SIGN} ?{_NUMBER} ?(?:and|to|-|–)|"
    rf"(?:\bnot?|\bnothing|\bnever|n['’]t|\bcannot){_FREE} (?:more than|over|above|exceed(?:ing)?|higher than)"
)
_NOT_BELOW = r"(?<!\bnot )(?<!\bno )(?<!\bnothing )(?<!n't )"
_COUNTED = (
    r"%|percent|degrees?|°|seconds?|minutes?|mins?|hours?|days?|weeks?|months?|years?|[mck]?m\b|inch(?:es)?|in\b|feet|ft|foot|miles?|"
    r"meters?|metres?|k?g\b|grams?|kilos?|lbs?|oz|ounces?|lit(?:er|re)s?|ml|[kmgt]b\b|pages?|pieces?|items?|people|persons?|times|"
    r"colou?rs?|steps?|players?|[a-z]+-"
)
_ENGLISH = re.compile(
    rf"{_NOT_BELOW}(?:{_BELOW}) ?{_SIGN} ?(?P<number>{_NUMBER})(?P<thousand>k\b)?(?![.,]?\d)(?! ?-?(?:{_COUNTED}))"
    rf"(?! ?(?:-|–) ?\d)"
)
_MONEY = r"(?:元|块钱?|人民币|美元|欧元|英镑|rmb)"
_CHINESE = (
    re.compile(rf"(?<![\d.,])(?P<number>{_NUMBER}) ?(?P<thousand>千)? ?{_MONEY}? ?(?:以下|以内|之下|之内)"),
    re.compile(
        r"(?<!不)(?:低于|少于|不到|不超过|不超|不高于|不多于|最多|至多|预算(?:是|为|在|约)?) ?[¥$€]? ?"
        rf"(?P<number>{_NUMBER}) ?(?P<thousand>千)?(?![.,]?\d) ?(?:{_MONEY}|(?![\u4e00-\u9fff])|(?=[以之的吧左]))"
    ),
)
_FIRST_NUMBER = re.compile(_NUMBER)


def budget_of(text: str) -> float | None:
    """The highest price that a wish allows, the lowest where it names several; None where it names none. Units are not read."""
    plain = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    found = [
        _value(match["number"]) * (1000 if match["thousand"] else 1)
        for pattern in (_ENGLISH, *_CHINESE)
        for match in pattern.finditer(plain)
    ]
    return min(found, default=None)


def number_in(value: str) -> float | None:
    """The first number of an attribute's value ("$1,299.00", "59,90 €"); None where it has none."""
    match = _FIRST_NUMBER.search(unicodedata.normalize("NFKC", value))
    return None if match is None else _value(match.group())


def _value(written: str) -> float:
    """A number with points and commas: the last parts the decimals, unless it comes again or is a comma before three digits."""
    mark = max(written.rfind("."), written.rfind(","))
    whole, decimals = (written, "") if mark < 0 else (written[:mark], written[mark + 1 :])
    if mark >= 0 and (written[mark] in whole or (written[mark] == "," and len(decimals) == 3)):
        whole, decimals = whole + decimals, ""
    return float(f"{re.sub('[.,]', '', whole)}.{decimals or 0}")
