"""What has changed in a source since its rows were cached: values of the table, prompts, images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.sources.several import MORE_PROMPTS
from img2prompt_cache.tables import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CONTENTS = ("prompts", "more_prompts", "images", "removed", "returned")
EXAMPLES = 3
"""Rows of a change that are shown."""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """Rows of a cache for which the source says something else now.

    Attributes
    ----------
    rows : numpy.ndarray, int64, shape (n,)
        Row numbers in the cache.
    now : sequence of str
        The text of each row in the source: a value, a prompt, or the uri of an image. Empty where the source
        has no such row any more.
    examples : tuple of dict of str to str
        Of the first rows: `imgId`, and where texts have changed `was` and `now`, shortened.
    """

    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    now: Sequence[str] = ()
    examples: tuple[dict[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def first(self) -> str:
        """The first example in words."""
        one = self.examples[0]
        more = f" {one['was']!r} → {one['now']!r}" if "was" in one else ""
        return f"(first: {one['imgId']}{more})"

    def summary(self) -> dict[str, Any]:
        """Give the number of rows and the examples, as JSON values."""
        return {"rows": len(self), "examples": list(self.examples)}


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """Everything in which a source differs from the rows that were cached from it.

    Attributes
    ----------
    columns : dict of str to Change
        By the user's own column that the cache keeps, or is to keep from now on.
    added, dropped : tuple of str
        Columns that the cache lacks, and such that the source lacks.
    renamed : dict of str to str
        Of the added columns, those that have the values of a dropped one, with its name.
    moved : Change
        Images that have the same bytes in another place.
    new_prompts, new_further : Change
        First prompts of images that had none, and their further prompts.
    renamed_ids : int
        Images that the source lists under another imgId than they were cached with, which they keep.
    prompts, more_prompts, images, removed, returned : Change
        Prompts that differ, images whose further prompts do, images with other bytes, images that the source
        lists no more, and images that were removed before and are listed again.
    unreadable : numpy.ndarray, int64, shape (n,)
        Rows whose image could not be read to compare its bytes.
    unknown : int
        Images whose size and time were not known, so that they count as unchanged.
    updated : bool
        Whether the pass takes in what is not a column.
    """

    columns: dict[str, Change] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    moved: Change = field(default_factory=Change)
    new_prompts: Change = field(default_factory=Change)
    new_further: Change = field(default_factory=Change)
    renamed_ids: int = 0
    prompts: Change = field(default_factory=Change)
    more_prompts: Change = field(default_factory=Change)
    images: Change = field(default_factory=Change)
    removed: Change = field(default_factory=Change)
    returned: Change = field(default_factory=Change)
    unreadable: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    unknown: int = 0
    updated: bool = False

    @property
    def contents(self) -> dict[str, Change]:
        """What needs `update` to be taken in, where there is any."""
        found = {
            "images": self.images,
            "prompts": self.prompts,
            "more_prompts": self.more_prompts,
            "removed": self.removed,
            "returned": self.returned,
        }
        return {name: change for name, change in found.items() if len(change)}

    @property
    def all_taken_in(self) -> bool:
        """Whether the cache holds what the source says once the pass has ended."""
        return (self.updated or not self.contents) and not len(self.unreadable)

    @property
    def encoded_again(self) -> int:
        """Cached rows that the pass encodes again."""
        return len(self.images) + len(self.returned) if self.updated else 0

    @property
    def taken_over(self) -> int:
        """Cached rows that get new texts: a prompt, a place, or values of the user's own columns."""
        texts = [self.prompts, self.more_prompts] if self.updated else []
        changed = [self.moved, self.new_prompts, *self.columns.values(), *texts]
        return len(np.unique(np.concatenate([change.rows for change in changed])))

    @property
    def left_out(self) -> int:
        """Cached rows that are left out from now on."""
        return len(self.removed) if self.updated else 0

    def counts(self) -> str:
        """Say in words what the pass does with cached rows; empty if nothing."""
        done = {
            "encoded again": self.encoded_again,
            "with other texts": self.taken_over,
            "left out": self.left_out,
        }
        return ", ".join(f"{rows} {what}" for what, rows in done.items() if rows)

    @property
    def unsettled(self) -> NDArray[np.int64]:
        """Rows whose image is still to be compared by the next pass."""
        return np.concatenate([self.unreadable, *([] if self.updated else [self.images.rows])])

    def summary(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return {
            "columns": {name: change.summary() for name, change in self.columns.items()},
            "added": list(self.added),
            "dropped": list(self.dropped),
            "renamed": self.renamed,
            "renamed_ids": self.renamed_ids,
            "new_prompts": self.new_prompts.summary(),
            **{name: getattr(self, name).summary() for name in _CONTENTS},
            "moved": len(self.moved),
            "unreadable": len(self.unreadable),
            "unknown": self.unknown,
            "updated": self.updated,
        }

    def lines(self, *, planned: bool = False) -> Iterator[str]:
        """Say in words what has changed, one line each, and what is done or can be done about it.

        Parameters
        ----------
        planned : bool
            Say what a pass would do, not what it does.
        """

        def taken(one: bool) -> str:
            return "would be" if planned else "is" if one else "are"

        for name, change in self.columns.items():
            if name not in self.added:
                what = counted(len(change), "value has changed", "values have changed")
                yield f"column {name}: {what} and {taken(len(change) == 1)} taken over {change.first}"
        kept = "would be kept" if planned else "is kept"
        added = [name for name in self.added if name not in (MORE_PROMPTS, *self.renamed)]
        if added:
            which = "would be kept" if planned else "kept"
            yield f"columns that are new in the table and {which} from now on: {', '.join(added)}"
        for name, old in self.renamed.items():
            yield (
                f"column {old} is called {name} in the table now, with the same values: {name} {kept} from "
                f"now on, and the cached values of {old} stay"
            )
        dropped = [name for name in self.dropped if name not in self.renamed.values()]
        if dropped:
            yield f"columns that the table no longer has; their cached values stay: {', '.join(dropped)}"
        if len(self.new_prompts):
            single = len(self.new_prompts) == 1
            what = counted(
                len(self.new_prompts),
                "image that had no prompt has one now: it",
                "images that had no prompt have one now: they",
            )
            yield f"{what} {taken(single)} taken in, and no image is encoded again {self.new_prompts.first}"
        if self.renamed_ids:
            one, many = "image keeps the imgId it was", "images keep the imgIds they were"
            yield (
                f"{counted(self.renamed_ids, one, many)} cached with, though the source lists "
                f"{'it' if self.renamed_ids == 1 else 'them'} under another now"
            )
        if len(self.moved):
            what = counted(len(self.moved), "image has moved and is", "images have moved and are")
            yield f"{what} the same {self.moved.first}"
        said = {
            "images": ("image has changed", "images have changed", "encoded again", "encodes {} again"),
            "prompts": (
                "prompt differs from the cached one",
                "prompts differ from the cached ones",
                "taken over",
                "takes {} over",
            ),
            "more_prompts": (
                "image has further prompts that are not the cached ones",
                "images have further prompts that are not the cached ones",
                "taken over",
                "takes {} over",
            ),
            "removed": (
                "cached image is gone from the source",
                "cached images are gone from the source",
                "left out",
                "leaves {} out",
            ),
            "returned": (
                "removed image is back",
                "removed images are back",
                "encoded again",
                "takes {} in",
            ),
        }
        for name, change in self.contents.items():
            one, many, done, to_do = said[name]
            single = len(change) == 1
            then = (
                f"{'it' if single else 'they'} {taken(single)} {done}"
                if self.updated
                else f"`update=True` {to_do.format('it' if single else 'them')}"
            )
            yield f"{counted(len(change), one, many)} {change.first}; {then}"
        if len(self.unreadable):
            what = counted(
                len(self.unreadable),
                "image cannot be read now, and stays as it was",
                "images cannot be read now, and stay as they were",
            )
            yield f"{what} cached"
        if self.unknown:
            one, many = "image was cached", "images were cached"
            also = "is" if self.unknown == 1 else "are"
            yield (
                f"{counted(self.unknown, one, many)} without size and time, and {also} taken to be the same; "
                "`check=True` compares the bytes"
            )
