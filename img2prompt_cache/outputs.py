"""Outputs: predictions written as they come, in the format that the extension names.

| extension | holds | nearest prompts |
|---|---|---|
| ``.npy`` | float32 (n, dim) in input order; beside ``x.npy``, ``x.ids.csv`` has ``row,imgId`` | no |
| ``.csv`` | Kaggle's ``imgId_eId,val``; the eIds of an image: ``<imgId>_0`` … ``<imgId>_383`` | no |
| ``.parquet`` | ``imgId``, ``embedding``, ``prompts`` (a list of ``prompt``, ``cosine``) | where given |
| ``.jsonl`` | one object a line with the same three names | where given |

Numbers in text have the fewest digits that read back as the same float32. Files are UTF-8.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TextIO, TypeAlias

import numpy as np

from img2prompt_cache.errors import Img2PromptError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    import pyarrow as pa
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

Prompts: TypeAlias = Sequence[Sequence[tuple[str, float]]]
"""For each row, its nearest prompts with their cosines, best first."""


class Writer(ABC):
    """Predictions on their way to a file; made by `open_writer`, used as a context manager.

    Everything goes to temporary names in the same folder. They are renamed when the ``with`` block ends well
    and removed when it does not, so that a file under the asked name is always a whole one.

    Attributes
    ----------
    keeps_prompts : bool
        Whether the format has a place for nearest prompts; where it has none, they are passed over.
    """

    keeps_prompts: ClassVar[bool] = False

    def __init__(self, path: Path, dim: int) -> None:
        self._path = path
        self._dim = dim
        self._open = ExitStack()
        self._temporary = {final: _temporary(final) for final in self.finals(path)}

    @classmethod
    def finals(cls, path: Path) -> tuple[Path, ...]:
        """Name every file that writing to `path` makes."""
        return (path,)

    def write(self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None = None) -> None:
        """Append rows.

        Parameters
        ----------
        ids : sequence of str, length b
            imgId of each row.
        vectors : numpy.ndarray, float32, shape (b, dim)
            Unit-norm predictions.
        prompts : sequence of length b, optional
            Nearest prompts of each row; given with every call or with none.

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
                f"{self._path} was not written; look at the run that made it with `compare`"
            )
        with self._reporting():
            self._append(ids, np.ascontiguousarray(vectors, dtype="<f4"), prompts)

    def __enter__(self) -> Self:
        """Open the temporary files."""
        try:
            with self._reporting():
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
                    for temporary in self._temporary.values():
                        _sync(temporary)
                    for final, temporary in self._temporary.items():
                        temporary.replace(final)
        finally:
            self._discard()

    @abstractmethod
    def _begin(self) -> None:
        """Open the temporary files, on the stack `_open`."""

    @abstractmethod
    def _append(self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None) -> None: ...

    def _finish(self) -> None:  # noqa: B027 - most formats end where their rows end
        """Write what can only be written last."""

    def _discard(self) -> None:
        with suppress(OSError):
            self._open.close()
        for temporary in self._temporary.values():
            temporary.unlink(missing_ok=True)

    def _text(self, final: Path) -> TextIO:
        return self._open.enter_context(self._temporary[final].open("w", encoding="utf-8", newline=""))

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Img2PromptError(f"cannot write {self._path}: {error.strerror or error}") from error


class NpyWriter(Writer):
    """``.npy`` with ``.ids.csv`` beside it: raw rows, with the header rewritten at the end."""

    @classmethod
    def finals(cls, path: Path) -> tuple[Path, ...]:
        """The names of the rows come first, so that no array ever lies there without them."""
        return (path.with_suffix(".ids.csv"), path)

    def _begin(self) -> None:
        names, values = self._temporary
        self._names = self._text(names)
        self._values = self._open.enter_context(self._temporary[values].open("wb"))
        self._rows = 0
        self._names.write("row,imgId\n")
        self._header()

    def _header(self) -> None:
        # NumPy pads the header so that a longer first axis still fits into the same bytes.
        shape = (self._rows, self._dim)
        np.lib.format.write_array_header_1_0(
            self._values, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )

    def _append(self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None) -> None:
        self._values.write(vectors.data)
        self._names.writelines(f"{row},{_quoted(name)}\n" for row, name in enumerate(ids, self._rows))
        self._rows += len(ids)

    def _finish(self) -> None:
        self._values.seek(0)
        self._header()


class CsvWriter(Writer):
    """Kaggle's submission format, one line a value."""

    def _begin(self) -> None:
        self._file = self._text(self._path)
        self._file.write("imgId_eId,val\n")

    def _append(self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None) -> None:
        for name, values in zip(ids, _shortest(vectors), strict=True):
            quoted = _quoted(name)
            # A quoted name takes the number in before its closing quote.
            start, end = (quoted[:-1], '"') if quoted is not name else (name, "")
            self._file.write("".join([f"{start}_{i}{end},{value}\n" for i, value in enumerate(values)]))


class JsonlWriter(Writer):
    """One JSON object a line."""

    keeps_prompts = True

    def _begin(self) -> None:
        self._file = self._text(self._path)

    def _append(self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None) -> None:
        for row, (name, values) in enumerate(zip(ids, _shortest(vectors), strict=True)):
            parts = [f'"imgId": {_json(name)}', f'"embedding": [{", ".join(values)}]']
            if prompts is not None:
                parts.append(f'"prompts": {_json(_records(prompts[row]))}')
            self._file.write("{" + ", ".join(parts) + "}\n")


class ParquetWriter(Writer):
    """A parquet table; whether it has prompts is settled by the first rows."""

    keeps_prompts = True
    _group_rows: ClassVar[int] = 4096

    def _begin(self) -> None:
        self._parquet: Any = None
        self._waiting: list[pa.Table] = []

    def _append(self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None) -> None:
        self._waiting.append(self._table(ids, vectors, prompts))
        if sum(len(table) for table in self._waiting) >= self._group_rows:
            self._flush()

    def _table(self, ids: Sequence[str], vectors: Vectors, prompts: Prompts | None) -> pa.Table:
        import pyarrow as pa

        columns = {
            "imgId": pa.array(ids, pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self._dim),
        }
        if prompts is not None:
            record = pa.struct([("prompt", pa.string()), ("cosine", pa.float32())])
            columns["prompts"] = pa.array([_records(nearest) for nearest in prompts], pa.list_(record))
        return pa.table(columns)

    def _flush(self) -> None:
        """Write the waiting rows as one row group: many small ones make a large, slow file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.concat_tables(self._waiting)
        if self._parquet is None:
            self._parquet = self._open.enter_context(
                pq.ParquetWriter(self._temporary[self._path], table.schema, use_dictionary=["imgId"])
            )
        self._parquet.write_table(table)
        self._waiting.clear()

    def _finish(self) -> None:
        if self._parquet is None and not self._waiting:
            self._waiting.append(self._table([], np.empty((0, self._dim), np.float32), None))
        if self._waiting:
            self._flush()


WRITERS: dict[str, type[Writer]] = {
    ".npy": NpyWriter,
    ".csv": CsvWriter,
    ".parquet": ParquetWriter,
    ".jsonl": JsonlWriter,
}


def open_writer(path: Path, dim: int, *, overwrite: bool = False) -> Writer:
    """Choose the writer by the extension of `path`, and find out now whether it can be written.

    Parameters
    ----------
    path : pathlib.Path
        File to be made; its extension is a key of `WRITERS`.
    dim : int
        Width of the embeddings.
    overwrite : bool
        Replace what is there, once the new file is whole.

    Returns
    -------
    Writer
        To be entered with ``with``.

    Raises
    ------
    UsageError
        If the extension is unknown, the folder is not there or not writable, or a file is there already
        and `overwrite` is not set.
    """
    kind = WRITERS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"--out {path}: the extension must be one of {', '.join(WRITERS)}")
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: the folder {path.parent} does not exist; make it first")
    try:
        probe = _temporary(path)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise UsageError(f"--out {path} cannot be made: {error.strerror}; name another file") from error
    for final in kind.finals(path):
        if final.is_dir():
            raise UsageError(f"--out {path}: {final} is a folder; name a file")
        if final.exists() and not overwrite:
            raise UsageError(f"--out {path}: {final} exists; give --overwrite to replace it, or another name")
    return kind(path, dim)


def _temporary(final: Path) -> Path:
    return final.with_name(f".{final.name}.{secrets.token_hex(4)}.partial")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _quoted(field: str) -> str:
    """Quote a CSV field where it must be."""
    # csv.writer would leave a lone carriage return bare on Python 3.11.
    return '"' + field.replace('"', '""') + '"' if re.search('[",\r\n]', field) else field


def _shortest(vectors: Vectors) -> list[list[str]]:
    """Write each value with the fewest digits that read back as the same float32."""
    import pyarrow as pa

    texts: list[str] = pa.array(vectors.ravel()).cast(pa.string()).to_pylist()
    width = vectors.shape[1]
    return [texts[start : start + width] for start in range(0, len(texts), width)]


def _records(nearest: Sequence[tuple[str, float]]) -> list[dict[str, str | float]]:
    return [{"prompt": prompt, "cosine": round(float(cosine), 6)} for prompt, cosine in nearest]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
