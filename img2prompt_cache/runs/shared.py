"""Runs on the Hub: an address resolved to a commit, and the files of that commit, of a known kind and size.

A repository that `push` made is a bundle without weights: its `bundle.json` lists every file of the run with
size and SHA-256. What it lists under other names than `NAMES` is refused before anything else is downloaded,
and nothing but these files ever is.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from img2prompt_cache.destination import refuse_url
from img2prompt_cache.errors import Img2PromptError, UsageError, check
from img2prompt_cache.models.weights import hub
from img2prompt_cache.progress import say, stage
from img2prompt_cache.runs.bundled import INFO, MOST_INFO, Bundle, Contents, check_folder, read_contents
from img2prompt_cache.shortage import shortage
from img2prompt_cache.sources.remote.address import scrub

SCHEME = "hf://"
TOKEN = "HF_TOKEN"  # noqa: S105 the name of a variable
REQUIRED = ("run/run.json", "run/head.safetensors", "run/held_out.safetensors")
NAMES = (*REQUIRED, "run/expected.safetensors", "bank/prompts.json", "bank/vectors.safetensors")
"""What a shared run may consist of, besides `bundle.json`."""
MOST_BYTES = 1 << 33
"""Of the files of a shared run together."""

_ADDRESS = re.compile(r"([\w.-]{1,96}/[\w.-]{1,96})(?:@((?!/)[\w./-]{1,200}))?", re.ASCII)
_COMMIT = re.compile("[0-9a-f]{40}")


def is_address(run: object) -> bool:
    """Whether a run is named by an address on the Hub.

    Raises
    ------
    UsageError
        If it is one that was made into a path: `pathlib` turns ``hf://`` into ``hf:/``.
    """
    if isinstance(run, Path):
        refuse_url(run, "run", "give an address as a str, because a Path cannot hold one")
    return isinstance(run, str) and run.startswith(SCHEME)


def parse_address(address: str) -> tuple[str, str]:
    """Split ``hf://owner/name[@revision]`` into the repository and the revision, which may be empty.

    Raises
    ------
    UsageError
        If it is none.
    """
    found = _ADDRESS.fullmatch(address.removeprefix(SCHEME))
    if found is None or ".." in address:
        raise UsageError(
            f"`run` {address[:200]} is no address of a run; write {SCHEME}owner/name or "
            f"{SCHEME}owner/name@revision",
            parameter="run",
        )
    return require_repository(found[1], "run"), found[2] or ""


def require_repository(name: str, parameter: str) -> str:
    """Refuse what the Hub does not take as the name of a repository, ``owner/name``.

    Raises
    ------
    UsageError
        Naming the parameter.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        check(name.count("/") == 1, "it has no owner, or several")
        validate_repo_id(name)
    except (HFValidationError, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UsageError(
            f"`{parameter}`: {name[:200]!r} is no owner/name of a repository: {reason}", parameter=parameter
        ) from None
    return name


def token_from_environment() -> str:
    """Give the token in the environment variable `HF_TOKEN`; empty where there is none.

    Raises
    ------
    UsageError
        If it is none that can be sent; it does not show it.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError(
            f"the environment variable {TOKEN} holds no token: it has spaces, or other characters"
        )
    return token


def open_shared(address: str) -> Bundle:
    """Open a run on the Hub: download its files into the local cache of the Hub, and check them.

    A branch or tag is resolved to its commit, which is told; where the Hub does not answer, to the one that
    it had when it last did. The files of a commit that are in the local cache are not asked for again.

    Raises
    ------
    UsageError
        If there is no such repository, revision or run.
    Img2PromptError
        If the Hub does not answer and the run is not in its local cache, or the run is none that can be used.
    """
    repository, revision = parse_address(address)
    if _COMMIT.fullmatch(revision) and (cached := _cached(repository, revision)):
        return _audited(repository, *cached)
    with _told(address, repository, revision), quiet():
        try:
            found = _download(repository, revision)
        except Exception as error:
            cached = _cached(repository, revision) if no_answer(error) else None
            if cached is None:
                raise
            say(f"the model hub ({hub.endpoint()}) did not answer; {repository} is as its local cache has it")
            found = cached
    return _audited(repository, *found)


def _audited(repository: str, folder: Path, contents: Contents) -> Bundle:
    """Check the files of a commit that lie in the local cache, and name the commit."""
    address = f"{SCHEME}{repository}@{folder.name}"
    try:
        check_folder(folder, contents.files, linked=folder.parent.parent)
    except (ValueError, OSError) as error:
        raise Img2PromptError(
            f"{address} is no run that can be used: {error}; if it was damaged here, remove {folder}"
        ) from None
    say(f"run {address}")
    return Bundle(address, folder, contents.name)


def _read(path: Path) -> Contents:
    """Read `bundle.json`, and refuse what no shared run has.

    Raises
    ------
    ValueError, OSError, Img2PromptError
    """
    contents = read_contents(path.open("rb"))
    for name in contents.files:
        check(name in NAMES, f"{name} is no file of a shared run")
    for name in REQUIRED:
        check(name in contents.files, f"it has no {name}")
    total = sum(listed.bytes for listed in contents.files.values())
    check(total <= MOST_BYTES, f"it has {total:,} bytes, more than {MOST_BYTES:,}")
    return contents


def _cached(repository: str, revision: str) -> tuple[Path, Contents] | None:
    """Find a run in the local cache of the Hub: all of it, or nothing."""
    info = _cached_file(repository, INFO, revision)
    if info is None:
        return None
    try:
        contents = _read(info)
    except (ValueError, OSError, Img2PromptError):
        return None
    folder = info.parent
    there = (_cached_file(repository, name, folder.name) for name in contents.files)
    return None if None in there else (folder, contents)


def _cached_file(repository: str, name: str, revision: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name, revision=revision or None)
    return Path(found) if isinstance(found, str) else None


def _download(repository: str, revision: str) -> tuple[Path, Contents]:
    """Download `bundle.json`, and then, of its commit, what that lists."""
    # Asked first because a download retries for minutes where nothing answers.
    size, commit = hub.within(hub.ASK_SECONDS, lambda: _ask(repository, INFO, revision))
    check(size <= MOST_INFO, f"its {INFO} has more than {MOST_INFO:,} bytes")
    info = _cached_file(repository, INFO, commit)
    if info is None or not _COMMIT.fullmatch(revision):
        info = _fetch(repository, INFO, revision)  # by its name, so that the local cache knows its commit
    contents = _read(info)
    commit = info.parent.name
    absent = [name for name in contents.files if _cached_file(repository, name, commit) is None]
    _require_room(sum(contents.files[name].bytes for name in absent))
    for name in absent:
        size, _ = _ask(repository, name, commit)
        wanted = contents.files[name].bytes
        check(size == wanted, f"{name} has {size:,} bytes there, and {INFO} lists {wanted:,}")
    with stage("download", len(absent)) as advance:
        for name in absent:
            _fetch(repository, name, commit)
            advance(1)
    return info.parent, contents


def _ask(repository: str, name: str, revision: str) -> tuple[int, str]:
    """Ask for the size of a file and the commit of a revision, without retries."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repository, name, revision=revision or None)
    answer = get_hf_file_metadata(url, timeout=hub.ASK_SECONDS, token=token_from_environment() or False)
    if answer.commit_hash is None or answer.size is None:
        raise ConnectionError("what answers there is not a model hub: it names no commit or no size")
    return answer.size, answer.commit_hash


def _fetch(repository: str, name: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download

    token = token_from_environment() or False  # False: that of no file or other place
    return Path(hf_hub_download(repository, name, revision=revision or None, token=token))


def _require_room(size: int) -> None:
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE)
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if size > free:
        raise Img2PromptError(
            f"the run has {size / 1e6:,.0f} MB, and {place} has {free / 1e6:,.0f} MB left; the environment "
            "variable HF_HUB_CACHE names another place"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library of the Hub from writing progress bars and log lines: its errors say all."""
    import logging

    from huggingface_hub import utils

    library: Any = utils  # not typed
    logger, shown = logging.getLogger("huggingface_hub"), not library.are_progress_bars_disabled()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    library.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if shown:
            library.enable_progress_bars()


def causes(error: BaseException) -> Iterable[BaseException]:
    """Give an error and those that it was raised from or while they were handled, the last one first."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def status_of(error: BaseException) -> int:
    """Give the HTTP status that an error of the library of the Hub stands for; 0 where there is none."""
    for each in causes(error):
        status = getattr(getattr(each, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return 0


def no_answer(error: Exception) -> bool:
    """Whether an error says that the Hub cannot be reached, or is not at work."""
    known = isinstance(error, Img2PromptError | ValueError) or is_local(error)
    return not known and (status_of(error) in (0, 429) or status_of(error) >= 500)


def is_local(error: Exception) -> bool:
    """Whether an error is this machine's: a file that cannot be written, a disk that is full."""
    return bool(shortage(error)) or getattr(error, "filename", None) is not None


def brief(error: BaseException) -> str:
    """Put an error of the library of the Hub into a few words, without any token or signature."""
    chain = [*causes(error)]
    cause = next((each for each in chain if status_of(each) and hasattr(each, "response")), chain[-1])
    text = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    token = os.environ.get(TOKEN, "").strip()
    return scrub(text.replace(token, "…") if token else text)[:160].rstrip(". ")


@contextmanager
def _told(address: str, repository: str, revision: str) -> Iterator[None]:
    """Turn what the library of the Hub raises into an error that says what to do."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    place = f"the model hub ({hub.endpoint()})"
    try:
        yield
    except Img2PromptError:
        raise
    except GatedRepoError as error:
        raise UsageError(
            f"{repository} is gated; accept its terms and set {TOKEN}", parameter="run"
        ) from error
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"{place} has no repository {repository}, or it is private and {TOKEN} holds no token that may "
            "read it",
            parameter="run",
        ) from error
    except RevisionNotFoundError as error:
        raise UsageError(f"{repository} has no revision {revision!r}", parameter="run") from error
    except Exception as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise UsageError(
                f"{address} holds no run, or not all of one, as `push()` puts it there ({brief(error)})",
                parameter="run",
            ) from error
        if is_local(error):
            raise
        if isinstance(error, ValueError) and status_of(error) == 0:
            raise Img2PromptError(f"{address} is no run that can be used: {error}") from error
        if status_of(error) in (401, 403):
            raise Img2PromptError(f"{place} does not let the token in {TOKEN} read {repository}") from error
        raise Img2PromptError(
            f"{address} is not in the local cache and {place} did not answer ({brief(error)}); check the "
            "network or HF_ENDPOINT"
        ) from error
