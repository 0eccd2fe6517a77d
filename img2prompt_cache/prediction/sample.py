"""Sample submissions: which rows a submission has to have, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.progress import Callback, note, warn
from img2prompt_cache.sources.matching import match, plain_ids
from img2prompt_cache.tables import counted

if TYPE_CHECKING:
    from img2prompt_cache.prediction.predictions import Predictions

COLUMN = "imgId_eId"
_EID = r"(?s)^(?P<id>.+)_(?P<number>[0-9]{1,6})$"
_BLOCK = 8 << 20
_SHOWN = 5


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The images of a sample submission.

    Attributes
    ----------
    path : pathlib.Path
    ids : pyarrow.ChunkedArray
        imgId of each image, in the order of the file.
    """

    path: Path
    ids: pa.ChunkedArray

    def order(self, table: pa.Table, tell: Callback) -> pa.Table:
        """Bring a listing into the order of the sample, with its ids; images that it lacks are left out.

        An id of the sample is the imgId of an image, with or without its suffix, or else the end of one:
        `0001` for ``images/0001.PNG``.

        Parameters
        ----------
        table : pyarrow.Table
            With the columns `imgId` and `uri`.
        tell : callable
            Told how many images the sample lacks, and how ids were matched.

        Raises
        ------
        UsageError
            If no image matches, or an id matches several.
        """
        index = self._match(table["imgId"], table["uri"], tell)
        kept = index.drop_null()
        left_out = len(table) - len(kept)
        if left_out:
            what = counted(left_out, "image is", "images are")
            warn(tell, f"{what} not in {self.path.name} and left out")
        ids = self.ids.filter(pc.is_valid(index))
        return table.take(kept).set_column(table.column_names.index("imgId"), "imgId", ids)

    def select(self, batch: Predictions, tell: Callback) -> Predictions:
        """Do the same with predictions for rows of a cache."""
        names = pa.chunked_array([pa.array(batch.ids, pa.string())])
        index = self._match(names, names, tell)
        rows = index.drop_null().to_numpy()
        ids = self.ids.filter(pc.is_valid(index)).to_pylist()
        return replace(
            batch,
            ids=ids,
            vectors=batch.vectors[rows],
            expected=None if batch.expected is None else batch.expected[rows],
            own_prompts=None
            if batch.own_prompts is None
            else [batch.own_prompts[row] for row in rows.tolist()],
        )

    def _match(self, names: pa.ChunkedArray, files: pa.ChunkedArray, tell: Callback) -> pa.Array:
        written = plain_ids(self.ids, files.combine_chunks().cast(pa.string()), self.path, "")
        index, how = match(written, names.combine_chunks().cast(pa.string()), self.path)
        if index.null_count == len(index):
            none = "its one image is not" if len(index) == 1 else f"none of its {len(index)} images is"
            raise UsageError(
                f"`like` {self.path}: {none} among those to predict for; the "
                f"first are {self.ids[0].as_py()!r} there and {names[0].as_py()!r} here",
                parameter="like",
            )
        if how:
            note(tell, how)
        return index


def read_sample(path: Path, dim: int) -> Sample:
    """Read a sample submission.

    Parameters
    ----------
    path : pathlib.Path
        A CSV file with a column `imgId_eId`: ``<imgId>_0`` to ``<imgId>_383`` of one image after another.
    dim : int
        Values of an image.

    Raises
    ------
    UsageError
        If it cannot be read, or has other rows.
    """

    def refuse(why: str) -> UsageError:
        return UsageError(f"`like` {path}{why}", parameter="like")

    found: list[pa.Array] = []
    row, last = 0, None
    try:
        for names in _read(path):
            parts = pc.extract_regex(names, _EID)
            if parts.null_count:
                at = pc.index(pc.is_null(parts), True).as_py()
                raise refuse(
                    f", row {row + at + 1}: {names[at].as_py()!r} is not an imgId with _ and a number"
                )
            ids, numbers = parts.field("id"), pc.cast(parts.field("number"), pa.int64()).to_numpy()
            expected = np.arange(row, row + len(ids)) % dim
            before = pa.concat_arrays([pa.array([last], pa.string()), ids.slice(0, len(ids) - 1)])
            same = pc.fill_null(pc.equal(ids, before), pa.scalar(value=False)).to_numpy(zero_copy_only=False)
            wrong = (numbers != expected) | ((expected > 0) & ~same)
            if wrong.any():
                at = int(np.argmax(wrong))
                raise refuse(
                    f", row {row + at + 1}: {names[at].as_py()!r}, where _{expected[at]} of an image was "
                    f"expected: each image has {dim} rows, one after another"
                )
            found.append(ids.filter(pa.array(expected == 0)))
            row, last = row + len(ids), ids[-1].as_py()
    except (pa.ArrowException, OSError) as error:
        raise refuse(f" cannot be read: {str(error).splitlines()[0][:200]}") from error
    if not row or row % dim:
        raise refuse(f" ends within an image: it has {row} rows, and each image has {dim}")
    ids = pa.chunked_array(found, pa.string())
    if pc.count_distinct(ids).as_py() < len(ids):
        raise refuse(" names an image twice")
    return Sample(path, ids)


def _read(path: Path) -> Iterator[pa.Array]:
    """Read the column of names, block by block."""

    convert = pa.csv.ConvertOptions(
        include_columns=[COLUMN], column_types={COLUMN: pa.string()}, strings_can_be_null=False
    )
    with closing(
        pa.csv.open_csv(path, read_options=pa.csv.ReadOptions(block_size=_BLOCK), convert_options=convert)
    ) as reader:
        for batch in reader:
            if batch.num_rows:
                yield batch.column(0)


def require_whole(out: Path, filled: Sequence[str], tell: Callback, *, allow_missing: bool) -> None:
    """Say for which images a submission has the mean in place of a prediction.

    Raises
    ------
    Img2PromptError
        If there are any, unless `allow_missing` is set.
    """
    if not filled:
        return
    shown = ", ".join(filled[:_SHOWN]) + (", …" if len(filled) > _SHOWN else "")
    what = counted(len(filled), "image has", "images have")
    told = f"{out} is complete, but {what} the mean in place of a prediction, which scores low: {shown}"
    if not allow_missing:
        raise Img2PromptError(
            f"{told}. Bring them back and predict again, or accept it: `allow_missing=True`"
        )
    warn(tell, told)
