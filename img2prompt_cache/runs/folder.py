"""The folder of a run: claimed before the work is done, written as a whole, its head read back."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.feature_blocks import concatenate
from img2prompt_cache.destination import require_free_place
from img2prompt_cache.errors import Img2PromptError, UsageError, check
from img2prompt_cache.files import Replacement, hash_file, restore
from img2prompt_cache.heads import make_head
from img2prompt_cache.locks import lock_folder
from img2prompt_cache.prediction.expectation import Expectation
from img2prompt_cache.runs.held_out import (
    SUMMARY,
    VALIDATION,
    VALIDATION_ROWS,
    Validation,
    save_validation,
)
from img2prompt_cache.runs.record import ExpectedRecord, RunRecord
from img2prompt_cache.runs.run_file import INFO, save_record
from img2prompt_cache.runs.state_file import read_state, write_state
from img2prompt_cache.runs.used_rows import ROWS, save_used_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Head

HEAD, EXPECTED, HISTORY = "head.safetensors", "expected.safetensors", "history.csv"
_NO_STATE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What heads, NumPy and torch raise for arrays that are not those of the head."""

FILES = (INFO, HEAD, EXPECTED, HISTORY, VALIDATION, VALIDATION_ROWS, ROWS, SUMMARY)
"""What may lie in the folder of a run; `SUMMARY` in that of a shared one alone."""


@contextmanager
def reserve(folder: Path, *, overwrite: bool = False) -> Iterator[None]:
    """Make the folder of a run before the work is done: it can be written, and nobody else takes it.

    An empty folder that nobody holds is taken: one that was made for it, or that a killed process left. If
    nothing came of the run in the block, its empty folder is removed.

    Parameters
    ----------
    folder : pathlib.Path
    overwrite : bool
        Take it also where a run is there already; that one stays until `save_run` replaces it.

    Raises
    ------
    UsageError
        If it exists and is not to be overwritten, holds anything but a run, or lies among the files of a
        cache (its `runs` apart) or of another run.
    Img2PromptError
        If it cannot be made.
    """
    require_free_place(folder, "run", own="runs/*")
    lock = _take(folder, overwrite=overwrite)
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()
        if lock is not None:
            os.close(lock)


def remove_empty(runs: Path) -> None:
    """Remove the empty folders of runs that were killed: those that nobody holds."""
    with suppress(OSError):
        for path in [*runs.iterdir()]:
            with suppress(OSError):
                if path.is_dir() and not any(path.iterdir()):
                    held = lock_folder(path)
                    try:
                        path.rmdir()
                    finally:
                        os.close(held)


def _take(folder: Path, *, overwrite: bool) -> int | None:
    """Give the folder's lock; None where a run is to be replaced, or folders cannot be locked."""
    restore(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        made = True
    except OSError as error:
        if not os.path.lexists(folder):
            raise Img2PromptError(f"run {folder} cannot be written: {error.strerror or error}") from None
        made = False
    try:
        lock = lock_folder(folder)
    except BlockingIOError:
        time.sleep(0.01 * made)
        if made and not folder.exists():  # taken for a leftover in the moment before it was locked
            return _take(folder, overwrite=overwrite)
    except FileNotFoundError:
        return _take(folder, overwrite=overwrite)
    except OSError:
        if made:
            return None
    else:
        if made or not any(folder.iterdir()):
            return lock
        os.close(lock)
    if not overwrite:
        raise UsageError(
            f"`run` {folder} exists; give `overwrite=True` to replace it, or another name", parameter="run"
        )
    _require_run(folder)
    return None


def _require_run(folder: Path) -> None:
    """Refuse to replace what is no run: the user may have named the wrong folder."""
    strangers = [folder.name] if not folder.is_dir() or folder.is_symlink() else []
    strangers = strangers or [path.name for path in folder.iterdir() if path.name not in FILES]
    if strangers:
        raise UsageError(
            f"`run` {folder} holds {strangers[0]}, which is no part of a run; name another folder",
            parameter="run",
        )
    if not os.access(folder.parent, os.W_OK):
        raise Img2PromptError(f"run {folder} cannot be written: the folder {folder.parent} is read-only")


def save_run(
    folder: Path,
    record: RunRecord,
    head: Head,
    history: list[dict[str, float]],
    held: Validation,
    expectation: Expectation | None = None,
    rows: NDArray[np.uint8] | None = None,
) -> RunRecord:
    """Write a run as a whole: the folder appears complete or not at all, an old one goes only then.

    Returns
    -------
    RunRecord
        As it was written, with the digests of the head and of the expectation.

    Raises
    ------
    Img2PromptError
        If the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with Replacement(folder, folder=True) as new:
            write_state(new.temporary / HEAD, head.state())
            save_validation(new.temporary, held)
            _save_history(new.temporary / HISTORY, history)
            if rows is not None:
                save_used_rows(new.temporary, rows)
            saved = replace(record, head_sha256=hash_file(new.temporary / HEAD))
            if expectation is not None and record.expected is not None:
                save_file(expectation.state(), new.temporary / EXPECTED)
                hashed: ExpectedRecord = {**record.expected, "sha256": hash_file(new.temporary / EXPECTED)}
                saved = replace(saved, expected=hashed)
            save_record(new.temporary, saved)
            new.commit()
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Img2PromptError(f"run {folder} cannot be written: {reason}") from error
    return saved


def _save_history(path: Path, history: list[dict[str, float]]) -> None:
    names = list(dict.fromkeys(key for record in history for key in record))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def load_head(folder: Path, record: RunRecord) -> Head:
    """Read the fitted head of a run.

    Raises
    ------
    Img2PromptError
        If `head.safetensors` is missing, not the one that was saved, or does not fit what the run says.
    """
    from safetensors import SafetensorError

    path = folder / HEAD
    try:
        if hash_file(path) != record.head_sha256:
            raise Img2PromptError(f"{path} is not the file that was saved with this run; fit it again")
        state = read_state(path)
        # Tried on the CPU: the caller may not want to use a GPU.
        head = make_head(record.head, **record.settings).use_device("cpu")
        head.bind(record.features).load_state(state)
        row = concatenate([np.zeros((1, *use.shape), np.float32) for use in record.features])
        shape = head.predict(row).shape
    except UsageError as error:
        raise Img2PromptError(f"{folder / INFO} is not what was saved: {error}; fit the run again") from None
    except OSError as error:
        raise Img2PromptError(f"{path} cannot be read: {error.strerror}; fit the run again") from None
    except (SafetensorError, *_NO_STATE) as error:
        reason = str(error).partition("\n")[0]
        raise Img2PromptError(f"{path} does not fit {INFO}: {reason}; fit the run again") from None
    if shape != (1, record.target.width):
        raise Img2PromptError(
            f"{path} predicts {shape[1]} values, not {record.target.width}; fit the run again"
        )
    return head.use_device("auto")


def load_expectation(folder: Path, record: RunRecord, head: Head) -> Expectation | None:
    """Read what to expect of the predictions of a run; None where it does not say.

    Raises
    ------
    Img2PromptError
        If `expected.safetensors` is missing, not the one that was saved, or does not fit what the run says.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if record.expected is None:
        return None
    path = folder / EXPECTED
    try:
        if hash_file(path) != record.expected.get("sha256"):
            raise Img2PromptError(f"{path} is not the file that was saved with this run; fit it again")
        signals = tuple(record.expected.get("signals", ()))
        found = Expectation.from_state(load_file(path), signals, head)
        width = found.bank.shape[1]
        check(width in (0, record.target.width), f"its prompts have {width} values")
    except OSError as error:
        raise Img2PromptError(f"{path} cannot be read: {error.strerror}; fit the run again") from None
    except (SafetensorError, *_NO_STATE) as error:
        reason = str(error).partition("\n")[0]
        raise Img2PromptError(f"{path} does not fit {INFO}: {reason}; fit the run again") from None
    return found
