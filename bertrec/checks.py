"""Checks of what was given, for settings that come from outside: options, rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bertrec.errors import InvalidInput


def number(name: str, given: object, least: float, most: float) -> float:
    """The number. Raises InvalidInput, naming it, for what is not a number from ``least`` to ``most``."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not least <= given <= most:
        raise InvalidInput(f"{name} is {given!r}; accepted is a number from {least:g} to {most:g}")
    return float(given)


def boolean(name: str, given: object) -> bool:
    """The truth value. Raises InvalidInput, naming it, for anything else."""
    if not isinstance(given, bool):
        raise InvalidInput(f"{name} is {given!r}; accepted are true and false")
    return given


def strings(name: str, given: object) -> tuple[str, ...]:
    """The list as a tuple. Raises InvalidInput, naming it, for what is not a list of strings of valid Unicode."""
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(value, str) for value in given):
        raise InvalidInput(f"{name} is {given!r}; accepted is a list of strings")
    for value in given:
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidInput(f"{name} holds {value!r}, which is not valid Unicode: it has a lone surrogate")
    return tuple(given)


def string(name: str, given: object) -> str:
    """The string. Raises InvalidInput, naming it, for what is not a string of valid Unicode."""
    if not isinstance(given, str):
        raise InvalidInput(f"{name} is {given!r}; accepted is a string")
    return strings(name, [given])[0]


def keys(name: str, given: object, accepted: Sequence[str]) -> Mapping[str, object]:
    """The object. Raises InvalidInput, naming it, for what is not an object or has a key that is not accepted."""
    if not isinstance(given, Mapping):
        raise InvalidInput(f"{name} is {given!r}; accepted is an object with the keys {', '.join(accepted)}")
    if unknown := sorted(set(given) - set(accepted), key=str):
        raise InvalidInput(f"{name} has the unknown key {unknown[0]!r}; accepted are {', '.join(accepted)}")
    return given
