"""The files of a run that is shared: what a stranger needs to predict with it, and nothing private."""

from __future__ import annotations

import json
import mmap
import re
import shutil
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.exporting.anonymous import private_texts, shared_record
from img2prompt_cache.exporting.model_card import write_card
from img2prompt_cache.files import hash_file
from img2prompt_cache.models.onnx_file import read_graph
from img2prompt_cache.prediction.bank_folder import PROMPTS, TENSORS, save_bank
from img2prompt_cache.prediction.known_prompts import BANK, load_prompts
from img2prompt_cache.progress import warn
from img2prompt_cache.runs.bundled import INFO, Listed, dumps
from img2prompt_cache.runs.folder import EXPECTED, HEAD
from img2prompt_cache.runs.held_out import SUMMARY
from img2prompt_cache.runs.held_summary import save_summary, summarise
from img2prompt_cache.runs.run_file import INFO as RECORD
from img2prompt_cache.runs.run_file import save_record
from img2prompt_cache.tables import counted

if TYPE_CHECKING:
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.progress import Callback
    from img2prompt_cache.runs.run import Run

EMBEDDED = ", with "
"""What stands before the arrays of a file that were made of single pairs or prompts."""
CARD, GRAPH, GOLDEN = "README.md", "run.onnx", "run.golden.npz"
OWN = (
    *(CARD, INFO, GRAPH, GOLDEN, f"{BANK}/{PROMPTS}", f"{BANK}/{TENSORS}"),
    *(f"run/{name}" for name in (RECORD, HEAD, EXPECTED, SUMMARY)),
)
"""Every file that a repository of a shared run may have of us."""

_PAIRS = {"vectors": "image features", "rows": "image features", "targets": "prompt embeddings"}
_PROMPTS = {"bank": "prompt embeddings"}
"""Arrays of a head that have one row for each pair it was fitted on, or for each of its prompts."""


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file of a repository: its name there, its size, and in a few words what it holds."""

    name: str
    bytes: int
    holds: str


def fill_folder(
    folder: Path,
    run: Run,
    *,
    repository: str,
    license: str | None,
    onnx: Path | None,
    images: bool,
    prompts: bool,
    home: Cache | Path | None,
    tell: Callback,
) -> list[SharedFile]:
    """Write the files of a run as they are shared, and list them.

    Parameters
    ----------
    folder : pathlib.Path
        An empty one.
    run : Run
    repository : str
        ``owner/name``, for the card.
    license : str, optional
        For the card.
    onnx : pathlib.Path, optional
        The exported run; its golden set is taken along where it lies beside it.
    images : bool
        Whether to take it along also where it holds images of the cache.
    prompts : bool
        Whether to put in the prompts of `home`, or those that the run came with.
    home : Cache or pathlib.Path, optional
        The cache.
    tell : callable

    Raises
    ------
    UsageError
        If the run cannot be shared, there are no prompts, or a file holds a path of this machine.
    Img2PromptError
        If the run is damaged, or `onnx` is no exported run.
    OSError
        If the folder cannot be written.
    """
    inside = folder / "run"
    inside.mkdir()
    run.expectation  # noqa: B018 damage is found now, of the head, too
    save_record(inside, shared_record(run))
    names = [HEAD] if run.expected is None else [HEAD, EXPECTED]
    for name in names:
        _place(run.folder / name, inside / name)
    save_summary(inside, summarise(run.folder, run))
    if prompts:
        (folder / BANK).mkdir()
        known = load_prompts(run, home, None, "cpu", tell, compose=False)
        save_bank(folder / BANK, known.bank, shared=True)
    listed = {
        path.relative_to(folder).as_posix(): Listed(path.stat().st_size, hash_file(path))
        for path in sorted(folder.glob("*/*"))
    }
    title = repository.partition("/")[2]
    (folder / INFO).write_bytes(dumps(title, [], listed, version("img2prompt-cache")))
    precision, exported = _exported(run, onnx, tell, images=images)
    for path, name in exported:
        _place(path, folder / name)
    text = write_card(
        run,
        title,
        license,
        repository=repository,
        prompts=prompts,
        onnx=precision,
        golden=(folder / GOLDEN).is_file(),
    )
    (folder / CARD).write_text(text, encoding="utf-8")
    _require_nothing_private(folder, run)
    return [
        SharedFile(name, (folder / name).stat().st_size, _holds(folder, name))
        for name in OWN
        if (folder / name).is_file()
    ]


def _place(source: Path, target: Path) -> None:
    """Have a file under another name, without a copy where there can be links."""
    try:
        target.symlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)


def _exported(
    run: Run, onnx: Path | None, tell: Callback, *, images: bool
) -> tuple[str, list[tuple[Path, str]]]:
    """Give the precision of the exported file, and list it and its golden set, each with its new name."""
    if onnx is None:
        return "", []
    from img2prompt_cache.exporting.export import fingerprint_of

    graph = read_graph(onnx, kind="run")
    precision = graph.metadata.get("precision", "")
    if graph.fingerprint != fingerprint_of(run, precision=precision):
        raise UsageError(
            f"`onnx` {onnx} was not exported from run {run.name} as it is now; `export()` makes it anew",
            parameter="onnx",
        )
    if not isinstance(graph.source, bytes):
        raise UsageError(
            f"`onnx` {onnx} has its values in another file, so it is not shared", parameter="onnx"
        )
    found = [(onnx, GRAPH)]
    golden = onnx.with_suffix(".golden.npz")
    if golden.is_file():
        if images or _is_drawn(golden):
            found.append((golden, GOLDEN))
        else:
            warn(
                tell, f"{golden.name} holds images of the cache, so it stays here without `with_images=True`"
            )
    return precision, found


def _is_drawn(golden: Path) -> bool:
    """Whether the pictures of a golden set were drawn; where it does not say so, they may be anybody's."""
    from img2prompt_cache.exporting.golden import DRAWN

    try:
        with np.load(golden, allow_pickle=False) as arrays:
            return str(arrays["origin"]) == DRAWN
    except (OSError, EOFError, ValueError, TypeError, LookupError, BadZipFile, zlib.error):
        return False


def _require_nothing_private(folder: Path, run: Run) -> None:
    """Refuse to share a file that holds a path of this machine."""
    private = private_texts(run)
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size):
        if path.suffix == ".safetensors":  # numbers, and names of arrays that heads chose
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for text in private:
                # In a text, hf://data/root holds no /root; in other files any byte may stand before a path.
                before = rb"(?<![\w./-])" if path.suffix in (".json", ".md") else b""
                if re.search(before + re.escape(text), data):
                    place = text.decode("utf-8", "replace")
                    raise UsageError(
                        f"{path.relative_to(folder)} is not shared: it holds {place}, a path of this machine"
                    )


def _holds(folder: Path, name: str) -> str:
    """Say what a file holds."""
    path = folder / name
    texts = {
        CARD: "the model card",
        INFO: "size and SHA-256 of each file of the run",
        GOLDEN: "images and predictions for them, to try the graph with",
        f"{BANK}/{TENSORS}": "their embeddings",
        f"run/{RECORD}": "settings, models, split and scores",
        f"run/{SUMMARY}": "mean prediction and sorted cosines of held-out pairs",
    }
    if name == f"{BANK}/{PROMPTS}":
        number = len(json.loads(path.read_text(encoding="ascii")))
        return f"{counted(number, 'prompt', 'prompts', ',')} as text"
    if name in texts:
        return texts[name]
    if name == GRAPH:
        within = [folder / "run" / each for each in (HEAD, EXPECTED)]
        learned = dict.fromkeys(text for each in within if each.is_file() for text in _learned(each))
        return EMBEDDED.join(["the exported graph", *([" and ".join(learned)] if learned else [])])
    what = "the fitted head" if name == f"run/{HEAD}" else "how to compute expected cosines"
    return EMBEDDED.join([what, *_learned(path)])


def _learned(path: Path) -> list[str]:
    """Say of how many pairs or prompts there are arrays in a file, each kind once."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, int] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 it is no mapping
                shape = file.get_slice(name).get_shape()
                kind = {**_PAIRS, **_PROMPTS}.get(name.rpartition(".")[2])
                if kind and len(shape) > 1 and shape[0]:
                    of = "pairs" if name.rpartition(".")[2] in _PAIRS else "prompts"
                    found.setdefault(f"{kind} of {{:,}} {of}", shape[0])
    except SafetensorError as error:
        raise Img2PromptError(f"{path.name} cannot be read: {error}") from None
    return [" and ".join(text.format(number) for text, number in found.items())] if found else []
