"""What a user chose before: how much of it counts, and how it reads as a text."""

from __future__ import annotations

from collections.abc import Sequence

MAX_HISTORY = 100
"""The latest items of a history that count."""
PROFILE_TITLES = 10
"""The latest titles that a profile names: about as many as fit into the encoder's tokens."""


def profile(titles: Sequence[str]) -> str:
    """A text for a user who said nothing, from the titles of the items that he chose, the latest first; empty without titles."""
    named = [title for title in reversed(titles) if title][:PROFILE_TITLES]
    return f"I liked {'; '.join(named)}." if named else ""
