"""Study files: Optuna's tables in one SQLite file, which hold JSON and numbers and nothing pickled."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.files import Replacement

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.storages import RDBStorage

NAME = "img2prompt-cache"
"""Of the one study in a file."""

TABLES = {"alembic_version", "studies", "study_user_attributes", "trials", "trial_params", "trial_values"}
"""Some of Optuna's: a file without them is something else."""

_WRONG = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError),
    ValueError,
)
"""What Optuna and its parsers raise for values that they never wrote."""

ANSWER = 30.0
"""Seconds to wait for another process that is reading or writing the file."""


def load_optuna() -> Any:
    """Import Optuna, with its log switched off.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    try:
        import optuna
    except ImportError:
        advice = "install it with `pip install 'img2prompt-cache[tune]'`"
        raise UsageError(f"searching takes Optuna; {advice}") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextmanager
def opened(file: Path, *, write: bool) -> Iterator[OptunaStudy]:
    """Open the study in a file; without `write` nothing can change it.

    Raises
    ------
    UsageError
        If there is no such file, or it is no study.
    Img2PromptError
        If it cannot be read.
    """
    optuna = load_optuna()
    _require_study(file)
    with readable(file):
        storage = _storage(file, "rw" if write else "ro")
    try:
        with readable(file):
            study = optuna.load_study(study_name=NAME, storage=storage)
            if [each.name for each in study.directions] != ["MAXIMIZE"]:
                raise ValueError("what is best is not what is highest")
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def make_file(file: Path, attributes: dict[str, Any]) -> None:
    """Make a file with an empty study; it appears whole or not at all.

    Parameters
    ----------
    file : pathlib.Path
    attributes : dict
        User attributes of the study, JSON values.
    """
    optuna = load_optuna()
    with writable(file), Replacement(file) as new:
        storage = _storage(new.temporary, "rwc")
        try:
            study = optuna.create_study(study_name=NAME, storage=storage, direction="maximize")
            for key, value in attributes.items():
                study.set_user_attr(key, value)
        finally:
            storage.remove_session()
            storage.engine.dispose()
        new.commit()


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turn whatever a damaged or made-up file brings about into one error.

    Raises
    ------
    Img2PromptError
        Naming the file.
    """
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, OptunaError, sqlite3.Error, *_WRONG) as error:
        reason = str(error).partition("\n")[0]
        raise Img2PromptError(f"study {file} cannot be read: {reason}; name another") from None


@contextmanager
def writable(file: Path) -> Iterator[None]:
    """Turn a failure to write, or damage found meanwhile, into one error that says why.

    Raises
    ------
    Img2PromptError
        Naming the file.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, sqlite3.Error, OSError) as error:
        reason = str(getattr(error, "strerror", None) or error.__cause__ or error).partition("\n")[0]
        raise Img2PromptError(
            f"study {file} cannot be written: {reason}; what was finished is kept"
        ) from None
    except _WRONG as error:
        reason = str(error).partition("\n")[0]
        raise Img2PromptError(f"study {file} cannot be read: {reason}; name another") from None


def _require_study(file: Path) -> None:
    """Refuse what is no study before Optuna sees it: triggers and views run code of whoever made them."""
    if not file.exists():
        raise UsageError(f"there is no study {file}; make one with `tune()`", parameter="study")
    try:
        with closing(_connect(file, "ro")) as connection:
            found = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
    except sqlite3.Error as error:
        raise UsageError(f"{file} is no study: {error}; name another", parameter="study") from None
    tables = {name for kind, name in found if kind == "table"}
    if not tables >= TABLES or {kind for kind, _ in found} - {"table", "index"}:
        raise UsageError(f"{file} is no study made by `tune()`; name another", parameter="study")


def _storage(file: Path, mode: str) -> RDBStorage:
    from optuna.storages import RDBStorage

    # The connection is made here and not from a URL: a path may hold any character.
    return RDBStorage(
        "sqlite://",
        engine_kwargs={"creator": lambda: _connect(file, mode)},
        skip_table_creation=mode != "rwc",
    )


def _connect(file: Path, mode: str) -> sqlite3.Connection:
    address = f"{file.absolute().as_uri()}?mode={mode}"
    if (
        mode == "rwc"
    ):  # one's own temporary file, locked as a whole; on NFS, SQLite's locks would clash with that
        address += "&nolock=1"
    connection = sqlite3.connect(address, uri=True, timeout=ANSWER, check_same_thread=False)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection
