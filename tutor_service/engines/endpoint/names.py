"""Tell which action a piece of text is the name of. Pure."""

from __future__ import annotations

import unicodedata


class ActionNames:
    """Look actions up by their names, as written or in another case where that is unambiguous.

    Args:
        labels: One per action; distinct.
        words: Other names of the same actions, in the same order; empty: none.

    Attributes:
        exact: Index of the action, by each name.
        folded: The same by the case-folded name, where no other action's is alike.
    """

    def __init__(self, labels: tuple[str, ...], words: tuple[str, ...]) -> None:
        self.exact: dict[str, int] = {}
        for group in (labels, words):
            for index, name in enumerate(group):
                self.exact.setdefault(unicodedata.normalize("NFKC", name), index)
        folded: dict[str, set[int]] = {}
        for name, index in self.exact.items():
            folded.setdefault(name.casefold(), set()).add(index)
        self.folded = {name: indices.pop() for name, indices in folded.items() if len(indices) == 1}

    def index(self, name: str) -> int | None:
        """Return the index of the action of this name."""
        return self.exact.get(name, self.folded.get(name.casefold()))
