"""The verb `export`: a run as one ONNX file, which needs neither this package nor torch."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.manifest_file import DEFAULT_CACHE
from img2prompt_cache.destination import begins_with, require_earlier_output, require_free_place
from img2prompt_cache.errors import Img2PromptError, UsageError, unknown
from img2prompt_cache.exporting.anonymous import shared_spec
from img2prompt_cache.exporting.fewer_bits import PRECISIONS, Precision, shorten
from img2prompt_cache.exporting.golden import golden_pictures, predicted, prepare, run_file, save_golden
from img2prompt_cache.exporting.joined_graph import PRODUCER
from img2prompt_cache.exporting.loss import Loss, calibration_pictures, measure_loss
from img2prompt_cache.exporting.model_card import architecture_of, require_line
from img2prompt_cache.exporting.run_graph import RunGraphs, RunParts, graphs_of, join, parts_of
from img2prompt_cache.exporting.run_module import EXPECTED, VECTORS
from img2prompt_cache.files import Replacement
from img2prompt_cache.models.backbones.taps import model_of
from img2prompt_cache.models.fingerprints import digest
from img2prompt_cache.models.onnx_file import write_graph
from img2prompt_cache.models.onnx_graph import require
from img2prompt_cache.models.packing import declared_licence
from img2prompt_cache.models.specs import BACKBONE_FAMILIES, ENCODER_FAMILIES, parse_spec
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.prediction.weights import Weights, weights_of
from img2prompt_cache.progress import Callback, listening, note, task
from img2prompt_cache.runs.names import open_run
from img2prompt_cache.runs.run import AnyRun, Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.data.columns import UsedColumn

MOST_LOSS = 0.002
"""By how much the cosine on held-out images may fall in fewer bits."""
TOLERANCE = 1e-4
"""Greatest cosine distance from the predictions of torch that a graph in float32 may have."""
_HEAD = rb"(?s)\x08.\x12\x10" + PRODUCER.encode()
_GOLDEN = rb"(?s)PK\x03\x04.{26}[a-z0-9_]+\.npy"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path, golden : pathlib.Path
        The graph, and the golden set beside it.
    bytes : int
        Of the graph.
    precision : str
    distance : float
        Greatest cosine distance from the vectors of torch, on the images of the golden set, in float32.
    origin : str
        Where these come from.
    metadata : dict
        Of the graph, as JSON values.
    loss : Loss or None
        What fewer bits cost; None in float32.
    """

    path: Path
    golden: Path
    bytes: int
    precision: str
    distance: float
    origin: str
    metadata: dict[str, Any] = field(repr=False)
    loss: Loss | None = None


def export(
    run: AnyRun | None = None,
    out: str | Path = "run.onnx",
    *,
    precision: Precision = "fp32",
    force: bool = False,
    cache: str | Path | Cache | None = None,
    license: str | None = None,
    weights: Weights = None,
    replace: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: bool | Callback = False,
) -> Exported:
    """Write a run as one ONNX file: from pixels to the vector and the cosine that it is expected to reach.

    It is tried before it appears: its vectors must be those that the run predicts. Beside it a golden set is
    written, ``NAME.golden.npz``, to try a client on; docs/export.md has the format of both.

    Parameters
    ----------
    run : Run, str or pathlib.Path, optional
        A run, its folder, its bundle, or its name in the cache's `runs`. The newest run of the cache if None.
    out : str or pathlib.Path
        A file that ends with ``.onnx``. Of more than 2 GB, the values lie beside it, in ``NAME.onnx.data``.
    precision : {"fp32", "fp16", "int8"}
        What backbones compute in; heads compute in float32. In fewer bits the file is smaller and predicts
        worse: by how much is measured on held-out images, and more than 0.002 is refused.
    force : bool
        Write it all the same, also where no held-out image can be read to measure that.
    cache : str, pathlib.Path or Cache, optional
        To find a run by its name; ``cache/default`` if None.
    license : str, optional
        Under what licence you share the run, for the file's metadata.
    weights : path or sequence of paths, optional
        Folders to search for the weights, as for `predict`.
    replace : mapping of str to str, optional
        Beginnings of paths in the run's specs, and what stands in their place now.
    overwrite : bool
        Replace an earlier export.
    progress : bool or callable
        See `img2prompt_cache.progress.listening`.

    Returns
    -------
    Exported

    Raises
    ------
    UsageError
        If something named is not there, `out` is and is not to be replaced, the head cannot be exported, or a
        library of the extra `export` is missing.
    Img2PromptError
        If the run is damaged, a backbone is not the one it was fitted with, torch cannot export it, the graph
        computes something else than the run or too much is lost in fewer bits, or it cannot be written.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> ipc.export(run, "run.onnx").distance  # doctest: +SKIP
    """
    for library in ("onnxscript", "onnxruntime"):
        require(library)
    if precision not in PRECISIONS:
        raise unknown("`precision`", precision, PRECISIONS, parameter="precision")
    require_line("license", license)
    out = Path(out)
    golden = out.with_suffix(".golden.npz")
    _require_free(out, golden, overwrite=overwrite)
    with (
        listening(progress) as tell,
        weights_of(fitted := open_run(run, cache or DEFAULT_CACHE), weights, replace),
    ):
        parts = parts_of(fitted)
        graphs = graphs_of(parts, tell)
        graph = join(parts, graphs)
        pictures = golden_pictures(fitted)
        pixels = prepare(parts, pictures.pictures)
        trial, loss = _Trial(parts, pixels), None
        fields = describe(parts, precision=precision, license=license or "")
        try:
            with tempfile.TemporaryDirectory() as folder, Replacement(golden) as new:
                if precision != "fp32":
                    exact = Path(folder) / "exact.onnx"
                    write_graph(graph, exact, kind="run", fingerprint="", trial=trial)
                    graph = join(parts, _shortened(parts, graphs, precision, tell))
                    loss = _Lost(parts, exact, trial, force=force)
                size = write_graph(
                    graph,
                    out,
                    kind="run",
                    fingerprint=fingerprint_of(fitted, precision=precision),
                    metadata={key: as_text(value) for key, value in fields.items()},
                    trial=loss or trial,
                )
                save_golden(new.temporary, {**pixels, **trial.outputs}, pictures.origin)
                new.commit()
        except OSError as error:
            raise Img2PromptError(f"{out} cannot be written: {error.strerror or error}") from error
        note(tell, f"the golden set {golden.name} holds {len(pictures.pictures)} {pictures.origin}")
    lost = None if loss is None else loss.measured
    return Exported(out, golden, size, precision, trial.distance, pictures.origin, fields, lost)


def _shortened(parts: RunParts, graphs: RunGraphs, precision: Precision, tell: Callback) -> RunGraphs:
    """Give the graphs with those of the backbones in fewer bits."""
    pictures = calibration_pictures(parts.run) if precision == "int8" else []
    short = []
    with task(tell, f"backbones in {precision}", len(graphs.backbones)) as advance:
        for used, graph in zip(parts.backbones, graphs.backbones, strict=False):
            inputs = dict.fromkeys(parts.inputs[at] for at in used.columns) if pictures else {}
            pixels = [each.prepare(pictures) for each in inputs]
            given = np.concatenate(pixels) if pixels else np.empty((0, 1, 1, 3), np.uint8)
            short.append(shorten(graph, precision, given))
            advance(1)
    return RunGraphs(tuple(short), graphs.head)


class _Trial:
    """The graph in ONNX Runtime against the run in torch, on the images of the golden set.

    Attributes
    ----------
    outputs : dict of str to numpy.ndarray
        What the graph gave, and under ``torch_vectors`` what torch did.
    distance : float
        Greatest cosine distance between both.
    """

    def __init__(self, parts: RunParts, pixels: dict[str, NDArray[np.uint8]]) -> None:
        self._parts, self.pixels = parts, pixels
        self.outputs: dict[str, NDArray[Any]] = {}
        self.distance = float("nan")

    def __call__(self, path: str) -> None:
        self.outputs = run_file(path, self.pixels)
        vectors, expected = predicted(self._parts, self.pixels)
        self.distance = float((1 - cosine(self.outputs[VECTORS], vectors)).max())
        away = 0.0 if expected is None else float(np.abs(self.outputs[EXPECTED] - expected).max())
        if not (self.distance <= TOLERANCE and away <= TOLERANCE):
            raise Img2PromptError(
                f"the graph computes something else than the run: vectors with a cosine distance of up to "
                f"{self.distance:.2g}, expected cosines up to {away:.2g} away, and {TOLERANCE:g} is allowed; "
                "please report it with the name of the head and of the backbones"
            )
        self.outputs["torch_vectors"] = vectors


class _Lost:
    """The graph in fewer bits against that in float32, on held-out images where they can be read."""

    def __init__(self, parts: RunParts, exact: Path, trial: _Trial, *, force: bool) -> None:
        self._parts, self._exact, self._trial, self._force = parts, exact, trial, force
        self.measured: Loss | None = None

    def __call__(self, path: str) -> None:
        outputs = run_file(path, self._trial.pixels)
        if not all(np.isfinite(values).all() for values in outputs.values()):
            raise Img2PromptError("in fewer bits the graph gives NaN or infinity")
        self._trial.outputs |= outputs
        self.measured = loss = measure_loss(self._parts, self._exact, Path(path))
        if self._force:
            return
        if loss.change is None:
            raise Img2PromptError(
                "what is lost in fewer bits cannot be measured, because no held-out image of the run can be "
                "read; `force=True` writes the file all the same"
            )
        if not loss.change >= -MOST_LOSS:  # NaN, too
            raise Img2PromptError(
                f"in fewer bits the cosine on {loss.images} held-out images falls by {-loss.change:.4f}, and "
                f"{MOST_LOSS:g} is allowed; `force=True` writes the file all the same"
            )


def fingerprint_of(run: Run, *, precision: str) -> str:
    """Hash what an export of a run depends on: its models, its head, its expectation, and the precision."""
    fields = {f"feature {at}": digest(column.fingerprint) for at, column in enumerate(run.features)}
    return digest(
        {
            **fields,
            "target": digest(run.target.fingerprint),
            "head": run.head_sha256,
            "expected": (run.expected or {}).get("sha256", ""),
            "precision": precision,
        }
    )


def describe(parts: RunParts, *, precision: str, license: str) -> dict[str, Any]:
    """Give the metadata of an export, as JSON values; docs/export.md says what each field means."""
    run = parts.run
    return {
        "head": run.head,
        "precision": precision,
        "license": license,
        "version": version("img2prompt-cache"),
        "inputs": {each.name: each.describe() for each in parts.pixel_inputs},
        "outputs": {VECTORS: run.target.width} | ({EXPECTED: 1} if parts.module.expected else {}),
        "backbones": [_model(next(iter(used.columns.values()))) for used in parts.backbones],
        "encoder": _model(run.target),
        "score": {name: run.metrics.get(name) for name in ("cosine", "ci95", "floor", "n", "groups")},
    }


def as_text(value: Any) -> str:
    """Give a field of the metadata as a file has it: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _model(column: UsedColumn) -> dict[str, str]:
    spec = shared_spec(column.spec).partition("#")[0]
    return {
        "spec": spec,
        "architecture": architecture_of(column),
        "weights": column.fingerprint.get("weights", ""),
        "license": _licence(column),
    }


def _licence(column: UsedColumn) -> str:
    """Find the licence of a model; empty where none is declared, or its weights are elsewhere."""
    try:
        spec = parse_spec(model_of(column), tuple({*BACKBONE_FAMILIES, *ENCODER_FAMILIES}))
        return declared_licence(spec, column.revision)
    except (Img2PromptError, OSError):
        return ""


def _require_free(out: Path, golden: Path, *, overwrite: bool) -> None:
    if out.suffix.lower() != ".onnx":
        raise UsageError(f"{out}: the extension must be .onnx", parameter="out")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}", parameter="out")
    for path, head in ((out, _HEAD), (golden, _GOLDEN)):
        require_free_place(path, "out")
        if path.is_dir():
            raise UsageError(f"{path} is a folder; name a file", parameter="out")
        require_earlier_output(path, "out", "export", lambda there, head=head: begins_with(there, head))  # type: ignore[misc]
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists; `overwrite=True` replaces it", parameter="out")
    data = out.with_name(f"{out.name}.data")  # what an earlier export may have beside it
    require_free_place(data, "out")
    if data.is_dir() or (data.exists() and not out.exists()):
        raise UsageError(
            f"{data} is there and was not made by `export()`; remove it, or name another file",
            parameter="out",
        )
