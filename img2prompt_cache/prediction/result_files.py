"""Result files: what `predict` writes predictions to, and in which order: `out`, `sidecar` and `like`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from img2prompt_cache.errors import UsageError
from img2prompt_cache.prediction.outputs import open_writer, writer_for
from img2prompt_cache.prediction.outputs.base import Vectors, Writer
from img2prompt_cache.prediction.outputs.kaggle import CsvWriter
from img2prompt_cache.prediction.outputs.sidecars import Sidecars
from img2prompt_cache.prediction.sample import Sample, read_sample, require_whole
from img2prompt_cache.progress import Callback, note

if TYPE_CHECKING:
    from img2prompt_cache.prediction.predictions import Predictions
    from img2prompt_cache.sources.base import Listing, Source


def is_submission(out: str | Path | None) -> bool:
    """Check whether `out` names a submission.

    Raises
    ------
    UsageError
        If the extension is unknown.
    """
    return out is not None and writer_for(out) is CsvWriter


def need_prompts(out: str | Path | None, sidecar: str | None) -> bool:
    """Check whether what `out` and `sidecar` name holds prompts, and nothing without them.

    Raises
    ------
    UsageError
        If the extension is unknown.
    """
    return sidecar is not None or (out is not None and writer_for(out).needs_prompts)


@dataclass(frozen=True, slots=True, eq=False)
class ResultFiles:
    """The files that predictions are written to, if any.

    Attributes
    ----------
    writer : Writer or None
        Of the file or folder that `out` names; a context manager.
    sidecars : Sidecars or None
    sample : Sample or None
        What images a submission has, in which order.
    """

    writer: Writer | None
    sidecars: Sidecars | None
    sample: Sample | None

    @classmethod
    def prepare(
        cls,
        out: str | Path | None,
        sidecar: str | None,
        like: str | Path | None,
        dim: int,
        *,
        overwrite: bool,
        inputs: Iterable[str | Path],
    ) -> ResultFiles:
        """Find out now whether the files can be written; arguments as for `predict` and `open_writer`.

        Raises
        ------
        UsageError
            If one cannot, or the sample cannot be read.
        """
        return cls(
            writer=None if out is None else open_writer(out, dim, overwrite=overwrite, inputs=inputs),
            sample=None if like is None else read_sample(Path(like), dim),
            sidecars=None if sidecar is None else Sidecars(sidecar, overwrite=overwrite),
        )

    @property
    def hides_columns(self) -> bool:
        """Whether `out` has no place for what is known of an image beside its vector."""
        return self.writer is not None and not self.writer.keeps_columns

    def expect(
        self, source: Source, listing: Listing, mean: Callable[[], Vectors], tell: Callback
    ) -> Listing:
        """Find out before the work whether the predictions for some images can be written.

        Parameters
        ----------
        source : Source
        listing : Listing
            The images.
        mean : callable
            Gives what a submission has where there is no prediction, shape (dim,).
        tell : callable
            Told what the sample lacks.

        Returns
        -------
        Listing
            The images in the order in which they are to be predicted.

        Raises
        ------
        UsageError
            Naming what cannot be written.
        """
        if self.sample is not None:
            listing = replace(listing, table=self.sample.order(listing.table, tell))
        if self.writer:
            self.writer.expect(each.as_py() for each in listing.table["imgId"])
        self._complete(listing.table["imgId"], mean)
        if self.sidecars is not None:
            self.sidecars.expect(source, listing)
        return listing

    def expect_rows(self, found: Predictions, mean: Callable[[], Vectors], tell: Callback) -> Predictions:
        """Do the same with predictions for rows of a cache, which are there already."""
        found = found if self.sample is None else self.sample.select(found, tell)
        self._complete(pa.array([*found.ids, *found.failed], pa.string()), mean)
        return found

    def require_places(self) -> None:
        """Check that sidecars have images to lie beside.

        Raises
        ------
        UsageError
            If nothing that is predicted for is an image file.
        """
        if self.sidecars is not None and not self.sidecars.places:
            raise UsageError(
                "`sidecar` writes beside image files; name some as `images`", parameter="sidecar"
            )

    def write(self, batch: Predictions) -> None:
        """Write a batch.

        Raises
        ------
        Img2PromptError
            If that cannot be done.
        """
        if not batch.ids:
            return
        if self.writer:
            self.writer.write(batch.ids, batch.vectors, batch.nearest, batch.columns)
        if self.sidecars:
            self.sidecars.write(batch.ids, batch.nearest, batch.columns)

    def check_written(self, tell: Callback, *, allow_missing: bool) -> None:
        """Say which rows of the finished file are not as one might expect.

        Raises
        ------
        Img2PromptError
            If a submission has the mean in place of predictions, unless `allow_missing` is set.
        """
        if self.writer and self.writer.guarded:
            note(
                tell,
                "ids that begin like a formula, and have an apostrophe before them in the CSV file: "
                f"{self.writer.guarded}; the .parquet and .jsonl outputs keep them",
            )
        if isinstance(self.writer, CsvWriter):
            require_whole(self.writer.path, self.writer.filled, tell, allow_missing=allow_missing)

    def _complete(self, ids: pa.Array | pa.ChunkedArray, mean: Callable[[], Vectors]) -> None:
        """Let a submission have a row for every image, and for every one of the sample if there is one."""
        if isinstance(self.writer, CsvWriter):
            wanted = ids if self.sample is None else self.sample.ids
            self.writer.complete((each.as_py() for each in wanted), mean, verbatim=self.sample is not None)
