"""A run: a fitted head in a folder, with its record, its history and its predictions."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

from img2prompt_cache.cache.manifest_file import NAME as MANIFEST
from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.prediction.inputs import Images
from img2prompt_cache.prediction.predict import predict
from img2prompt_cache.prediction.predictions import Predictions
from img2prompt_cache.prediction.weights import Weights
from img2prompt_cache.progress import Callback
from img2prompt_cache.runs.bundled import Bundle, is_bundle, open_bundle
from img2prompt_cache.runs.folder import HISTORY, load_expectation, load_head
from img2prompt_cache.runs.held_out import SUMMARY, mean_prediction
from img2prompt_cache.runs.held_summary import load_summary, summarise
from img2prompt_cache.runs.record import RunRecord
from img2prompt_cache.runs.run_file import load_record
from img2prompt_cache.runs.shared import is_address, open_shared
from img2prompt_cache.tables import Records, html_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Head
    from img2prompt_cache.prediction.expectation import Expectation


@dataclass(frozen=True, kw_only=True, repr=False)
class Run(RunRecord):
    """A fitted head in a folder.

    Besides what its record says (see `RunRecord`), a run gives its `estimator`, its `history`, and predicts.

    Attributes
    ----------
    folder : pathlib.Path
        Holds `run.json`, `head.safetensors`, `expected.safetensors`, `history.csv`, `validation.npy` and
        `validation.csv`.
    bundle : Bundle or None
        What it came in with its weights and prompts; see `bundle()`.

    Examples
    --------
    >>> run = Run.load("cache/default/runs/ridge-resnet50-01")  # doctest: +SKIP
    >>> run.predict(["a.png", "b.png"], top_k=3).prompts  # doctest: +SKIP
    """

    folder: Path
    bundle: Bundle | None = field(default=None, compare=False)
    without_expectation: ClassVar[str] = (
        "this run was fitted before runs had an expected cosine; fit it again to have it"
    )
    own_bank: ClassVar[None] = None

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a run: from its folder, from a bundle, or from the Hub (``hf://owner/name[@revision]``).

        Raises
        ------
        UsageError
            If there is no run in this folder, or at this address.
        Img2PromptError
            If its record is damaged, or of a newer version.
        """
        if is_address(folder):
            bundle: Bundle | None = open_shared(str(folder))
        else:
            bundle = open_bundle(Path(folder)) if is_bundle(Path(folder)) else None
        home = bundle.folder / "run" if bundle else Path(folder)
        return cls.of(load_record(home), home, bundle)

    @classmethod
    def of(cls, record: RunRecord, folder: Path, bundle: Bundle | None = None) -> Self:
        """Make a run of its record, the folder it lies in, and the bundle that this is in."""
        known = {each.name: getattr(record, each.name) for each in fields(RunRecord)}
        return cls(**known, folder=folder, bundle=bundle)

    @property
    def name(self) -> str:
        """Name of the folder; of a run in a bundle, the name it had before."""
        return self.bundle.name if self.bundle else self.folder.resolve().name

    @property
    def path(self) -> Path | str:
        """As it was named: its folder, its bundle, or its address on the Hub with the commit."""
        return self.bundle.path if self.bundle else self.folder

    @property
    def carried(self) -> Path | None:
        """Folder with the weights and prompts that it came with in a bundle."""
        return self.bundle.folder if self.bundle else None

    @property
    def home(self) -> Path | None:
        """The cache it was fitted on: the one it lies in, else where it was then; None where that is gone.

        A run in a bundle has none: it predicts the same on every machine.
        """
        if self.bundle:
            return None
        places = (self.folder.resolve().parent.parent, Path(self.cache))
        return next(filter(_is_cache, places), None)

    @property
    def outdated(self) -> str:
        """What has changed in the rows of its cache since it was fitted; empty if nothing, or if it is gone.

        Rows that were added do not count.
        """
        if self.home is None:
            return ""
        try:
            updates = load_manifest(self.home).updates[self.updates :]
        except Img2PromptError:
            return ""
        return "; ".join(f"{update.get('changed', '')} ({update.get('at', '')})" for update in updates)

    @cached_property
    def estimator(self) -> Head:
        """The fitted head, a scikit-learn estimator.

        Raises
        ------
        Img2PromptError
            If `head.safetensors` is missing, not the one that was saved, or does not fit the record.
        """
        return load_head(self.folder, self)

    @cached_property
    def expectation(self) -> Expectation | None:
        """What to expect of the predictions; None in runs that were fitted before runs said so.

        Raises
        ------
        Img2PromptError
            If `expected.safetensors` is missing, not the one that was saved, or does not fit the record.
        """
        return load_expectation(self.folder, self, self.estimator)

    @cached_property
    def held_cosines(self) -> NDArray[np.float64]:
        """The cosines of held-out rows in ascending order, float64 (n,).

        Raises
        ------
        Img2PromptError
            If its files are damaged, or do not fit the record.
        """
        return summarise(self.folder, self).cosine

    @cached_property
    def mean_prediction(self) -> NDArray[np.float32]:
        """The mean of the unit predictions for held-out rows, float32 (t,), which tells hubs from others.

        Raises
        ------
        Img2PromptError
            If `validation.npy` cannot be read, or does not fit the record.
        """
        if (self.folder / SUMMARY).is_file():
            return load_summary(self.folder, self).mean_prediction
        return mean_prediction(self.folder, self.target.width)

    @property
    def history(self) -> Records:
        """What was recorded while the head was fitted: losses by epoch, or scores by candidate.

        A shared run has none.

        Raises
        ------
        Img2PromptError
            If `history.csv` cannot be read.
        """
        path = self.folder / HISTORY
        if (self.folder / SUMMARY).is_file() and not path.exists():
            return Records()
        try:
            with path.open(encoding="utf-8", newline="") as file:
                return Records(
                    {name: _number(text) for name, text in row.items()} for row in csv.DictReader(file)
                )
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise Img2PromptError(f"{path} cannot be read: {error}; fit the run again") from None

    def predict(
        self,
        images: Images = None,
        *,
        top_k: int | None = None,
        bank: str | Path | None = None,
        hub_correction: bool = True,
        compose: bool = False,
        cache: str | Path | Cache | None = None,
        out: str | Path | None = None,
        sidecar: str | None = None,
        overwrite: bool = False,
        min_expected: float | None = None,
        like: str | Path | None = None,
        allow_missing: bool = False,
        weights: Weights = None,
        replace: Mapping[str, str] | None = None,
        device: str = "auto",
        runtime: str = "auto",
        engine: str = "local",
        workers: int | None = None,
        ray_address: str | None = None,
        progress: bool | Callback = False,
    ) -> Predictions:
        """Predict prompt embeddings for images, or for rows of features.

        Parameters
        ----------
        images : path, sequence of paths, Cache, array of float or None
            Image files, folders or any source; a cache, for its rows; features of shape (n, p), joined
            as the run was fitted on them; or None for the rows of the run's cache that have no prompt.
        top_k : int, optional
            Nearest prompts to find for each image. If None: 3, but none for an array, and none where
            predictions are written with `out` and no `bank` is named; 1 for captions that are not composed.
        bank : path, optional
            Prompts to choose from: a text file with one a line, or a table. The cache's prompts if None.
        hub_correction : bool
            Rank the nearest prompts with a correction for hubs: prompts that are near to every prediction. It
            takes the mean of the run's predictions for held-out rows.
        compose : bool
            Also compose a prompt for each image, of phrases in the cache's prompts and those of `bank`: see
            `Predictions.composed`. It takes the text encoder that made the targets.
        cache : path or Cache, optional
            In place of the cache that the run was fitted on.
        out : path, optional
            Also write the predictions to this file: ``.npy``, ``.csv`` (Kaggle), ``.parquet`` or ``.jsonl``;
            or to a folder, ``captions/``, a text file with the composed or nearest prompt of each image; or
            that prompt for each image as a table to read, ``.prompts.csv``.
        sidecar : str, optional
            Also write that prompt beside each image: ``"txt"``, ``"caption"`` or ``"json"``. What is there
            already stays.
        overwrite : bool
            Replace the file, and sidecars.
        min_expected : float, optional
            Flag predictions whose expected cosine is lower; see `Predictions.flagged`. None is left out.
        like : path, optional
            A sample submission, whose images `out`, a ``.csv`` file, is to have, in that order. An imgId may
            be that of an image, or the end of one: `0001` for ``images/0001.png``.
        allow_missing : bool
            Accept a submission in which images that cannot be used, or are not there, have the run's mean
            prediction for held-out rows. Without it that is an error; the file is written all the same.
        weights : path or sequence of paths, optional
            Folders to search, with all below them, for the weights that the run was fitted with, told by
            their fingerprints, if they lie elsewhere now. `IMG2PROMPT_WEIGHTS` names more.
        replace : mapping of str to str, optional
            Beginnings of paths in the run's specs, and what stands in their place now.
        device : str
            ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        runtime : {"auto", "torch", "openvino"}
            What computes the backbones on a processor. ``"auto"`` is what the run's features were made with,
            and torch where that is OpenVINO and cannot be used here.
        engine : {"local", "ray"}
            What encodes and predicts images: this machine, or a Ray cluster whose machines all see the images
            and the weights under the same paths.
        workers : int, optional
            Slices of 512 images that the cluster works on at once; one for each GPU if None, or one for each
            machine where there is none.
        ray_address : str, optional
            The Ray cluster: ``"auto"``, ``"host:port"`` or ``"ray://host:port"``. If None, the session that
            is open, or else one of this machine.
        progress : bool or callable
            See `img2prompt_cache.progress.listening`.

        Returns
        -------
        Predictions
            Bad images are left out, and listed in `Predictions.failed`.

        Raises
        ------
        UsageError
            If something named is not there, or the array has another width than the run.
        Img2PromptError
            If the run is damaged, a backbone is not the one it was fitted with, every image is bad,
            or a submission has the mean in place of predictions.
        """
        return predict(
            self,
            images,
            top_k=top_k,
            bank=bank,
            hub_correction=hub_correction,
            compose=compose,
            cache=cache,
            out=out,
            sidecar=sidecar,
            overwrite=overwrite,
            min_expected=min_expected,
            like=like,
            allow_missing=allow_missing,
            weights=weights,
            replace=replace,
            device=device,
            runtime=runtime,
            engine=engine,
            workers=workers,
            ray_address=ray_address,
            progress=progress,
        )

    def __repr__(self) -> str:
        score = f"cosine={self.metrics['cosine']:.4f}"
        return f"Run({str(self.folder)!r}, head={self.head!r}, {score}, n={self.metrics['n']})"

    def _repr_html_(self) -> str:
        shown: dict[str, Any] = {
            "folder": self.folder,
            "head": self.head,
            "features": " + ".join(column.spec for column in self.features),
            "target": self.target.spec,
            **self.metrics,
            "seconds": self.seconds,
        }
        if self.outdated:
            shown["rows changed since"] = self.outdated
        return html_table(["", ""], [list(item) for item in shown.items()])


AnyRun: TypeAlias = Run | str | Path
"""A run, its folder, its name in a cache's `runs`, or its address ``hf://owner/name`` on the Hub."""

Runs: TypeAlias = Sequence[AnyRun]


def load_run(folder: str | Path) -> Run:
    """Read a run; see `Run.load`."""
    return Run.load(folder)


def _is_cache(folder: Path) -> bool:
    try:
        return (folder / MANIFEST).is_file()
    except OSError:  # a name that is too long, a folder that may not be looked into
        return False


def _number(text: str) -> float | int | str | None:
    """Read a cell of the history: a number where it is one, None where it is empty."""
    if text == "":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
