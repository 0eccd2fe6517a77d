"""The verb `bundle`: a run with its prompts and weights in one folder or zip file that predicts offline."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from img2prompt_cache.cache.manifest_file import DEFAULT_CACHE
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.destination import begins_with, require_earlier_output, require_free_place
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.files import Replacement, hash_file
from img2prompt_cache.models.backbones.taps import split_spec
from img2prompt_cache.models.encoders.base import Encoder
from img2prompt_cache.models.fingerprints import digest
from img2prompt_cache.models.naming import find_encoder
from img2prompt_cache.models.packing import copy_model
from img2prompt_cache.models.recorded import load_recorded_backbone, load_recorded_encoder
from img2prompt_cache.models.specs import Spec
from img2prompt_cache.models.weights.places import Places, looking_in
from img2prompt_cache.prediction.bank_folder import save_bank
from img2prompt_cache.prediction.known_prompts import BANK, load_prompts, why_no_prompts
from img2prompt_cache.prediction.outside import of_images
from img2prompt_cache.prediction.weights import Weights, weights_of
from img2prompt_cache.progress import Callback, listening, task, warn
from img2prompt_cache.runs.bundled import FOLDERS, INFO, Listed, dumps, require_name
from img2prompt_cache.runs.folder import FILES
from img2prompt_cache.runs.names import open_run, short_name
from img2prompt_cache.runs.run import AnyRun, Run

if TYPE_CHECKING:
    from img2prompt_cache.models.backbones.base import Backbone

_ZIP_HEAD = rb"(?s)PK\x03\x04.{26}bundle\.json"


def bundle(
    run: AnyRun | None = None,
    out: str | Path = "run.zip",
    *,
    cache: str | Path | Cache | None = None,
    bank: str | Path | None = None,
    weights: Weights = None,
    replace: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: bool | Callback = False,
) -> Path:
    """Put a run, its prompts and the weights of its models into one file or folder, which predicts offline.

    `predict` takes the bundle in place of a run. It is tried before it appears under its name: every model is
    loaded from it, and its digests are compared with those that the run recorded.

    Parameters
    ----------
    run : Run, str or pathlib.Path, optional
        A run, its folder, or its name in the cache's `runs`. The newest run of the cache if None.
    out : str or pathlib.Path
        A zip file where it ends with ``.zip``, else a folder. The same run and weights give the same bytes.
    cache : str, pathlib.Path or Cache, optional
        Whose prompts are put in. If None, the run's own; ``cache/default`` to find a run by its name.
    bank : str or pathlib.Path, optional
        Prompts in place of the cache's: a text file with one a line, or a table.
    weights : path or sequence of paths, optional
        Folders to search for the weights, as for `predict`.
    replace : mapping of str to str, optional
        Beginnings of paths in the run's specs, and what stands in their place now.
    overwrite : bool
        Replace an earlier bundle.
    progress : bool or callable
        True shows notes and a progress bar; a callable is called with every `Event`.

    Returns
    -------
    pathlib.Path
        `out`.

    Raises
    ------
    UsageError
        If something named is not there, or `out` is and is not to be replaced, or is no bundle.
    Img2PromptError
        If weights cannot be found or read without running code, or it cannot be written.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> ipc.bundle(run, "run.zip")  # doctest: +SKIP
    >>> ipc.predict("run.zip", "pictures/")  # doctest: +SKIP
    """
    out = Path(out)
    _require_free(out, overwrite=overwrite, inputs=[] if bank is None else [bank])
    fitted = open_run(run, cache or DEFAULT_CACHE)
    with listening(progress) as tell, weights_of(fitted, weights, replace):
        try:
            with Replacement(out, folder=True) as new:
                _fill(new.temporary, fitted, cache, bank, tell)
                if out.suffix.lower() != ".zip":
                    new.commit()
                    return out
                with Replacement(out, tidy=False) as packed:
                    _zip(new.temporary, packed.temporary)
                    packed.commit()
        except OSError as error:
            raise Img2PromptError(f"bundle {out} cannot be written: {error.strerror or error}") from error
    return out


def _require_free(out: Path, *, overwrite: bool, inputs: list[str | Path]) -> None:
    """Refuse a place where something is that is no earlier bundle."""
    require_free_place(out, "out", inputs=inputs)
    if not out.parent.is_dir():
        raise UsageError(f"`out` {out}: there is no folder {out.parent}", parameter="out")
    if not (out.exists() or out.is_symlink()):
        return
    as_file = out.suffix.lower() == ".zip"
    if out.is_dir() == as_file:
        kind = "a folder" if as_file else "a file"
        raise UsageError(f"`out` {out} is {kind}; name another", parameter="out")
    if not as_file:
        strangers = [path.name for path in out.iterdir() if path.name not in (INFO, *FOLDERS)]
        if out.is_symlink() or strangers or (any(out.iterdir()) and not (out / INFO).is_file()):
            raise UsageError(f"`out` {out} is a folder and no bundle; name another", parameter="out")
    else:
        require_earlier_output(out, "out", "bundle", lambda path: begins_with(path, _ZIP_HEAD))
    if not overwrite and (as_file or any(out.iterdir())):
        raise UsageError(f"`out` {out} exists; `overwrite=True` replaces it", parameter="out")


def _fill(
    folder: Path, fitted: Run, cache: str | Path | Cache | None, bank: str | Path | None, tell: Callback
) -> None:
    """Write everything, and try it."""
    for name in (*FOLDERS,):
        (folder / name).mkdir()
    for name in FILES:
        if (fitted.folder / name).is_file():
            shutil.copyfile(fitted.folder / name, folder / "run" / name)
    fitted.estimator  # noqa: B018 a head that is damaged is found now
    fitted.expectation  # noqa: B018
    home = fitted.home if cache is None else cache if isinstance(cache, Cache) else Path(cache)
    carried = fitted.carried is not None and (fitted.carried / BANK).is_dir()
    if bank is None and home is None and not carried:
        warn(tell, f"{why_no_prompts(fitted)}, so the bundle has no prompts to show")
        (folder / "bank").rmdir()
    else:
        save_bank(folder / "bank", load_prompts(fitted, home, bank, "cpu", tell, compose=False).bank)
    models = _models(fitted, tell)
    said: list[dict[str, object]] = []
    with task(tell, "pack weights", len(models)) as advance:
        for number, (specs, spec, revision, place) in enumerate(models):
            into = folder / "weights" / f"{number:02d}-{short_name(specs[0])[:60]}"
            into.mkdir()
            licence = copy_model(spec, revision, place, into)
            said.append({"folder": into.relative_to(folder).as_posix(), "specs": specs, "license": licence})
            advance(1)
    with looking_in(Places((folder / "weights",))):
        for model in _load(fitted, tell=None):
            if model.folder is None or not model.folder.is_relative_to(folder):
                raise Img2PromptError(
                    f"{model.spec} cannot be put into a bundle: what was packed of it is not the same model"
                )
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        try:
            require_name(name)
        except ValueError as error:
            raise Img2PromptError(f"a bundle cannot hold all of this run: {error}") from None
        files[name] = Listed(path.stat().st_size, hash_file(path))
    (folder / INFO).write_bytes(dumps(fitted.name, said, files, version("img2prompt-cache")))


def _models(fitted: Run, tell: Callback) -> list[tuple[list[str], Spec, str, Path | None]]:
    """List the models of a run, each once: the specs it has, where it lies, and at which commit."""
    found: dict[tuple[str, str, str], tuple[list[str], Spec, str, Path | None]] = {}
    for model in _load(fitted, tell):
        revision = model.revision if isinstance(model, Encoder) else model.identity.get("revision", "")
        key = (model.spec, revision, str(model.folder or ""))
        spec = Spec(*model.spec.split(":", 1))
        found.setdefault(key, ([model.spec], spec, revision, model.folder))
    return list(found.values())


def _load(fitted: Run, tell: Callback | None) -> Iterator[Backbone | Encoder]:
    """Load the models of a run, one after the other: backbones, encoders of class names, its own encoder.

    The last is left out, with a note, where it cannot be found: it is needed for other prompts alone.
    """
    seen: set[object] = set()
    for column in of_images(fitted.features):
        key = (split_spec(column.spec)[0], column.revision)
        if key not in seen:
            seen.add(key)
            yield load_recorded_backbone(column, device="cpu", precision="fp32")
        encoder, wanted = (column.fingerprint.get(name, "") for name in ("encoder", "encoder_digest"))
        if wanted and wanted not in seen:
            seen.add(wanted)
            yield find_encoder(encoder, "cpu", wanted)
    if digest(fitted.target.fingerprint) in seen:
        return
    try:
        yield load_recorded_encoder(fitted.target, device="cpu")
    except Img2PromptError as error:
        if tell is not None:
            warn(tell, f"the bundle has no text encoder, which `bank` and `compose` need: {error}")


def _zip(folder: Path, out: Path) -> None:
    """Write a zip file whose bytes follow from those of the files alone; `bundle.json` comes first."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names.sort(key=lambda name: name != INFO)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            member.create_system, member.external_attr = 3, 0o100644 << 16
            size = (folder / name).stat().st_size
            large = size >= 1 << 31
            with (
                (folder / name).open("rb") as source,
                archive.open(member, "w", force_zip64=large) as target,
            ):
                shutil.copyfileobj(source, target, 1 << 22)
