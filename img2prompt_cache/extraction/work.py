"""Slices: the rows of one part, on their way to being cached."""

from __future__ import annotations

from dataclasses import dataclass

from img2prompt_cache.cache.reader import OK


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of one part.

    Attributes
    ----------
    number : int
        Which part.
    start : int
        Its first row.
    text : dict of str to list of str
        `imgId`, `uri`, `prompt` and the user's own columns; with `sha256` and `status` where the rows are
        cached already. An image without a `sha256` may be any.
    """

    number: int
    start: int
    text: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.text["imgId"])

    @property
    def known(self) -> bool:
        """Whether these rows are cached already and only other columns are to be added."""
        return "sha256" in self.text

    def was_good(self, row: int) -> bool:
        """Whether the image of a row could be used when it was cached."""
        return self.known and self.text["status"][row] == OK
