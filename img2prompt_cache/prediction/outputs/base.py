"""What every output is: rows written to temporary names, which are renamed once all is well."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TextIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.files import Replacement, sync_folder

if TYPE_CHECKING:
    from types import TracebackType

Vectors: TypeAlias = NDArray[np.float32]
"""Predictions, shape (b, dim)."""

Prompts: TypeAlias = Sequence[Sequence[tuple[str, float]]]
"""For each row, its nearest prompts with their cosines, best first."""

Columns: TypeAlias = Mapping[str, Sequence[Any] | NDArray[Any]]
"""Further columns by name, with a value for each row; see `sources.owntables.FURTHER_COLUMNS`."""


class Writer(ABC):
    """Predictions on their way to a file; made by `open_writer`, used as a context manager.

    Everything goes to temporary names in the same folder. They are renamed when the ``with`` block ends well
    and removed when it does not, so that a file under the asked name is always a whole one.

    Attributes
    ----------
    keeps_prompts : bool
        Whether the format has a place for nearest prompts; where it has none, they are passed over.
    keeps_columns : bool
        The same for further columns.
    keeps_every_image : bool
        Whether images that cannot be used have rows, too.
    needs_prompts : bool
        Whether what it writes are prompts.
    guarded : int
        Ids so far that have an apostrophe before them in the file, so that no spreadsheet computes them.
    """

    keeps_prompts: ClassVar[bool] = False
    keeps_columns: ClassVar[bool] = False
    keeps_every_image: ClassVar[bool] = False
    needs_prompts: ClassVar[bool] = False

    def __init__(self, path: Path, dim: int) -> None:
        self._path = path
        self._dim = dim
        self.guarded = 0
        self._open = ExitStack()
        self._new: dict[Path, Replacement] = {}

    @property
    def path(self) -> Path:
        """The file that is made."""
        return self._path

    @classmethod
    @abstractmethod
    def is_ours(cls, path: Path) -> bool:
        """Check whether a file that is there was written by this class; only such a one is replaced.

        Parameters
        ----------
        path : pathlib.Path
            One of `finals`.

        Raises
        ------
        OSError
            If it cannot be read.
        """

    @classmethod
    def finals(cls, path: Path) -> tuple[Path, ...]:
        """Name every file that writing to `path` makes."""
        return (path,)

    def expect(self, ids: Iterable[str]) -> None:  # noqa: B027 - most formats take every id
        """Find out before the work whether rows of these ids can be written.

        Parameters
        ----------
        ids : iterable of str
            imgId of every image that is to be predicted; images that turn out to be unusable count, too.

        Raises
        ------
        UsageError
            Naming the one that cannot.
        """

    def write(
        self,
        ids: Sequence[str],
        vectors: Vectors,
        prompts: Prompts | None = None,
        columns: Columns = MappingProxyType({}),
    ) -> None:
        """Append rows.

        Parameters
        ----------
        ids : sequence of str, length b
            imgId of each row.
        vectors : numpy.ndarray, float32, shape (b, dim)
            Unit-norm predictions.
        prompts : sequence of length b, optional
            Nearest prompts of each row; given with every call or with none.
        columns : mapping of str to sequence of length b
            Further columns; the same ones with every call.

        Raises
        ------
        Img2PromptError
            If a prediction is not finite, or the file cannot be written (no room left).
        """
        if vectors.shape != (len(ids), self._dim):
            raise ValueError(f"{len(ids)} ids and dim {self._dim} do not fit vectors {vectors.shape}")
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise Img2PromptError(
                f"the prediction of {ids[int(np.argmin(finite))]} is not finite (NaN or infinity), so "
                f"{self._path} was not written; look at the run that made it with `compare()`"
            )
        with self._reporting():
            self._append(ids, np.ascontiguousarray(vectors, dtype="<f4"), prompts, columns)

    def __enter__(self) -> Self:
        """Open the temporary files."""
        try:
            with self._reporting():
                self._reserve()
                self._begin()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the files their names, or, after an error, remove them."""
        try:
            if kind is None:
                with self._reporting():
                    self._finish()
                    self._open.close()
                    self._commit()
        finally:
            self._discard()

    def _reserve(self) -> None:
        """Make the temporary files."""
        for final in self.finals(self._path):
            self._new[final] = Replacement(final)

    def _commit(self) -> None:
        """Give the temporary files their names."""
        for new in self._new.values():
            new.flush()
        self._remove_last()
        for new in self._new.values():
            new.commit()

    def _remove_last(self) -> None:
        """Remove the last of several old files: the new first one never lies beside it.

        A process that is killed between the renames leaves no array, rather than one with other rows' names.
        """
        *others, last = self._new
        if others:
            last.unlink(missing_ok=True)
            sync_folder(last.parent)

    @abstractmethod
    def _begin(self) -> None:
        """Open the temporary files, on the stack `_open`."""

    @abstractmethod
    def _append(
        self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None, columns: Columns
    ) -> None: ...

    def _finish(self) -> None:  # noqa: B027 - most formats end where their rows end
        """Write what can only be written last."""

    def _discard(self) -> None:
        with suppress(OSError):
            self._open.close()
        for new in self._new.values():
            new.discard()

    def _text(self, final: Path) -> TextIO:
        return self._open.enter_context(self._new[final].temporary.open("w", encoding="utf-8", newline=""))

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Img2PromptError(f"cannot write {self._path}: {error.strerror or error}") from error


def records(nearest: Sequence[tuple[str, float]]) -> list[dict[str, str | float]]:
    """Put the nearest prompts of one row as the formats that keep them do."""
    return [{"prompt": prompt, "cosine": round(float(cosine), 6)} for prompt, cosine in nearest]


def plain(value: Any) -> Any:
    """Give a value of a further column as JSON has it; numbers as cosines are written, to six places."""
    if isinstance(value, np.generic):
        value = value.item()
    return round(value, 6) if isinstance(value, float) else value
