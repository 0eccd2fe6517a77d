"""Graphs kept on disk, because converting one takes seconds.

``graphs/DIGEST/`` in the user's folder, where packaged weights are, too, holds `graph.xml` and `graph.bin` as
OpenVINO writes them, and `graph.json`: which versions made them, their SHA-256, and where the graph was
compared with torch. What is damaged, or was made by other versions, is made anew.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from img2prompt_cache.files import Replacement, hash_file, user_folder
from img2prompt_cache.models.fingerprints import digest

if TYPE_CHECKING:
    import openvino

    from img2prompt_cache.models.backbones.base import Backbone

FORMAT = 1
"""Changes where the same model gives another graph."""
MOST_NOTE_BYTES = 1 << 16
_FILES = ("graph.xml", "graph.bin")
_NOTE = "graph.json"


def load_graph(core: openvino.Core, backbone: Backbone) -> openvino.Model | None:
    """Load the graph of a backbone; None if there is none, or it is damaged or of other versions."""
    folder, note = graph_folder(backbone), _read(backbone)
    try:
        if note.get("sha256") != {name: hash_file(folder / name) for name in _FILES}:
            return None
        return core.read_model(folder / _FILES[0])
    except (OSError, RuntimeError):
        return None


def keep_graph(core: openvino.Core, model: openvino.Model, backbone: Backbone) -> openvino.Model:
    """Keep a graph, if the user's folder can be written; it is converted again where it cannot.

    Returns
    -------
    openvino.Model
        Read back from its files in any case: in the last bit it computes otherwise than before.
    """
    folder = graph_folder(backbone)
    with suppress(OSError, RuntimeError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with Replacement(folder, folder=True) as scratch:
            _write(model, scratch.temporary)
            scratch.commit()
        kept = load_graph(core, backbone)
        if kept is not None:
            return kept
    with TemporaryDirectory() as scratch_folder:
        _write(model, Path(scratch_folder))
        return core.read_model(*((Path(scratch_folder) / name).read_bytes() for name in _FILES))


def _write(model: openvino.Model, folder: Path) -> None:
    import openvino

    openvino.save_model(model, folder / _FILES[0], compress_to_fp16=False)
    sha256 = {name: hash_file(folder / name) for name in _FILES}
    note = {"versions": _versions(), "sha256": sha256, "compared": []}
    (folder / _NOTE).write_text(json.dumps(note, indent=1))


def forget_graph(backbone: Backbone) -> None:
    """Remove the graph of a backbone that does not compute what torch does."""
    shutil.rmtree(graph_folder(backbone), ignore_errors=True)


def was_compared(backbone: Backbone, where: str) -> bool:
    """Say whether the graph of a backbone was compared with torch before.

    Parameters
    ----------
    backbone : Backbone
    where : str
        In which precision, on which processor.
    """
    known = _read(backbone).get("compared")
    return isinstance(known, list) and where in known


def note_compared(backbone: Backbone, where: str) -> None:
    """Remember that it was."""
    folder, note = graph_folder(backbone), _read(backbone)
    if not note:
        return
    known = note.get("compared")
    note["compared"] = [*(known if isinstance(known, list) else ()), where]
    with suppress(OSError), Replacement(folder / _NOTE) as file:
        file.temporary.write_text(json.dumps(note, indent=1))
        file.commit()


def graph_folder(backbone: Backbone) -> Path:
    """Where the graph of a backbone is kept: by all that it depends on but versions."""
    fields = {
        key: value for key, value in backbone.fingerprint.items() if key not in ("precision", "runtime")
    }
    return user_folder() / "graphs" / digest(fields)[:32]


def _read(backbone: Backbone) -> dict[str, Any]:
    """Read the note of a graph; an empty one where there is none, or it is of other versions."""
    try:
        with (graph_folder(backbone) / _NOTE).open("rb") as file:
            note = json.loads(file.read(MOST_NOTE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) and note.get("versions") == _versions() else {}


def _versions() -> dict[str, str]:
    """Versions of what a graph is made by."""
    found = {"format": str(FORMAT)}
    for library in ("openvino", "torch", "timm", "open_clip_torch"):
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found
