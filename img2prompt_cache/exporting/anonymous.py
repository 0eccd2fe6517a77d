"""What a run says of itself when it is shared: no path of this machine, no name of an image or of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.backbones.taps import split_spec
from img2prompt_cache.prediction.outside import of_images
from img2prompt_cache.runs.record import RunRecord

if TYPE_CHECKING:
    from img2prompt_cache.runs.run import Run

_LOCAL = "local-dir:"
_PATH = re.compile(r"(?:.*local-dir:)?(?:/|~|\\\\|[A-Za-z]:[\\/])", re.DOTALL)
"""How a text begins that is a path, or a spec with one."""


def shared_spec(spec: str) -> str:
    """Give a spec with the name of the folder of the weights alone, not where on this machine that lies."""
    head, found, path = spec.partition(_LOCAL)
    return f"{head}{found}{_name(path)}" if found else spec


def _name(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or "model"


def local_folders(run: RunRecord) -> list[str]:
    """List the folders of weights in the specs of a run, in the order in which they stand there."""
    found = [
        split_spec(spec)[0].partition(_LOCAL)[2]
        for column in (*run.features, run.target)
        for spec in (column.spec, column.current, *column.fingerprint.values())
        if _is_local(spec)
    ]
    return list(dict.fromkeys(found))


def _is_local(text: str) -> bool:
    return re.match(rf"[a-z_]+:{_LOCAL}", text) is not None


def shared_record(run: Run) -> RunRecord:
    """Give the record of a run without what is of this machine or of other runs.

    What was asked for is left out, the settings chosen for each fold, the series, and where the cache was; of
    a folder with weights only the name stays, and of the members of a blend the kind of head. What predicts
    is kept: head, settings, columns with their fingerprints, target, and all scores.

    Raises
    ------
    UsageError
        If the run has predictions of another program in it, which are looked up by the names of images, or
        a setting is a path.
    """
    if len(of_images(run.features)) < len(run.features):
        raise UsageError(
            f"run {run.name} holds predictions of another program and the names of their images, so it "
            "cannot be shared; blend it without them",
            parameter="run",
        )
    names: dict[str, str] = {}
    for folder in local_folders(run):
        base = name = _name(folder)
        number = 1
        while name in names.values():  # two models must not become one
            number += 1
            name = f"{base}-{number}"
        names[folder] = name

    def spec(text: str) -> str:
        if not _is_local(text):
            return text
        model = split_spec(text)[0]
        head, found, path = model.partition(_LOCAL)
        return f"{head}{found}{names.get(path, _name(path))}{text.removeprefix(model)}"

    def column(use: UsedColumn) -> UsedColumn:
        fingerprint = {key: spec(value) for key, value in use.fingerprint.items()}
        return replace(use, spec=spec(use.spec), current=spec(use.current), fingerprint=fingerprint)

    record = RunRecord(
        head=run.head,
        settings=_walk(_unnamed(run.settings), spec),
        features=tuple(map(column, run.features)),
        target=column(run.target),
        split=_walk(run.split, spec),
        metrics=run.metrics,
        seconds=run.seconds,
        refit=run.refit,
        rows=run.rows,
        cache="",
        created=run.created,
        measured=_walk(_without_caches(run.measured), spec),
        versions=run.versions,
        head_sha256=run.head_sha256,
        parameters=run.parameters,
        predict_rows_per_second=run.predict_rows_per_second,
        fold_metrics=[
            {key: fold[key] for key in ("cosine", "n") if key in fold} for fold in run.fold_metrics
        ],
        train_on=run.train_on,
        updates=run.updates,
        expected=run.expected,
    )
    for text in _texts(asdict(record)):
        if _PATH.match(text):
            raise UsageError(
                f"run {run.name} cannot be shared: {text[:80]!r} in its record is a path", parameter="run"
            )
    return record


def _without_caches(measured: dict[str, Any]) -> dict[str, Any]:
    """Give what fitting measured without the folders of the caches that extra pairs came from."""
    extra = measured.get("extra")
    return {**measured, "extra": {**extra, "caches": []}} if isinstance(extra, dict) else measured


def _unnamed(settings: dict[str, Any]) -> dict[str, Any]:
    """Give settings with the members of a blend called by their heads, and no run by its name."""
    if settings.get("teacher"):
        settings = {**settings, "teacher": "teacher"}
    members = settings.get("members")
    if not isinstance(members, list | tuple):
        return settings
    renamed = [
        {**each, "run": f"{each['head']}-{number:02d}", "settings": _unnamed(each.get("settings", {}))}
        for number, each in enumerate(members, 1)
    ]
    return {**settings, "members": renamed}


def _walk(value: Any, change: Callable[[str], str]) -> Any:
    """Change every text in JSON values, keys apart."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _walk(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(each, change) for each in value]
    return value


def _texts(value: Any) -> Iterable[str]:
    """List every text in JSON values, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _texts(key)
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def private_texts(run: Run) -> list[bytes]:
    """List texts that no file that is shared may hold: the paths of this machine that have to do with a run.

    As UTF-8 and as JSON spells them.
    """
    places = [run.cache, run.folder.resolve(), run.home or "", Path.cwd(), Path.home(), *local_folders(run)]
    found = {text for place in map(str, places) for text in (place, json.dumps(place)[1:-1])}
    return [text.encode("utf-8", "surrogateescape") for text in sorted(found) if len(text) > 4]
