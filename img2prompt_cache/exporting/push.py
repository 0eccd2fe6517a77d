"""The verb `push`: a run in a repository of the Hugging Face Hub, for everybody to predict with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2prompt_cache.cache.manifest_file import DEFAULT_CACHE
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.exporting.anonymous import local_folders, shared_spec
from img2prompt_cache.exporting.model_card import require_line
from img2prompt_cache.exporting.shared_folder import CARD, EMBEDDED, OWN, SharedFile, fill_folder
from img2prompt_cache.models.weights.hub import endpoint
from img2prompt_cache.progress import Callback, listening, note
from img2prompt_cache.runs.bundled import INFO
from img2prompt_cache.runs.names import open_run
from img2prompt_cache.runs.shared import (
    SCHEME,
    TOKEN,
    brief,
    is_local,
    quiet,
    require_repository,
    status_of,
    token_from_environment,
)
from img2prompt_cache.tables import counted

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.runs.run import AnyRun

MADE_BY_HUB = (".gitattributes",)
KEPT = (*MADE_BY_HUB, ".gitignore", "LICENSE", CARD)
"""What a repository may hold before a run is put there; all but the card stays."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was put into a repository, or would be.

    Attributes
    ----------
    repository : str
        ``owner/name``.
    files : tuple of SharedFile
    commit : str
        40 hex digits; empty after a dry run.
    """

    repository: str
    files: tuple[SharedFile, ...]
    commit: str = ""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def address(self) -> str:
        """What `predict` takes in the place of a run: with the commit, if there is one."""
        return f"{SCHEME}{self.repository}" + (f"@{self.commit}" if self.commit else "")


def push(
    run: AnyRun,
    repository: str,
    *,
    cache: str | Path | Cache | None = None,
    onnx: str | Path | None = None,
    with_prompts: bool = False,
    with_images: bool = False,
    license: str | None = None,
    private: bool = False,
    revision: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: bool | Callback = False,
) -> Pushed:
    """Put a run and its model card into a repository of the Hugging Face Hub, in one commit.

    The token comes from the environment variable `HF_TOKEN` and from nowhere else. What is of this machine
    alone stays here: paths, names of images, predictions for single pairs, and prompts unless they are asked
    for. A head that keeps what it was fitted on (`nearest`, `knn`, `kernel`) takes these features and
    embeddings along, and expected cosines the embeddings of prompts: `Pushed.files` says so of each file.

    Parameters
    ----------
    run : Run, str or pathlib.Path
        A run, its folder, or its name in the cache's `runs`.
    repository : str
        ``owner/name``; made if it is not there.
    cache : str, pathlib.Path or Cache, optional
        Whose prompts are put in. If None, the run's own; ``cache/default`` to find a run by its name.
    onnx : str or pathlib.Path, optional
        The run as `export` wrote it; the golden set beside it goes along.
    with_prompts : bool
        Share the prompts, too, as text: `predict` then shows the nearest ones.
    with_images : bool
        Share the golden set also where it holds images of the cache.
    license : str, optional
        Under what licence you share the run; see `card`.
    private : bool
        Make a private repository.
    revision : str, optional
        A branch, made if it is not there; ``"main"`` if None.
    overwrite : bool
        Put the run in the place of one that is there. Earlier commits stay.
    dry_run : bool
        List the files, and ask nobody.
    progress : bool or callable
        See `img2prompt_cache.progress.listening`.

    Returns
    -------
    Pushed

    Raises
    ------
    UsageError
        If there is no such run, it cannot be shared, there is no token, or the repository holds something
        else.
    Img2PromptError
        If the Hub does not accept the token or the files, or does not answer.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> ipc.push(run, "me/prompts-of-images", license="mit").commit  # doctest: +SKIP
    """
    from huggingface_hub import HfApi

    require_repository(repository, "repository")
    require_line("license", license)
    if revision is not None and not revision.strip():
        raise UsageError("`revision` is empty; name a branch", parameter="revision")
    token = token_from_environment()
    if not token and not dry_run:
        raise UsageError(
            f"the environment variable {TOKEN} is not set: it has to hold a token that may write to "
            f"{repository} ({endpoint()}/settings/tokens); no token that is stored on this machine is used"
        )
    with listening(progress) as tell:
        fitted = open_run(run, cache or DEFAULT_CACHE)
        home = fitted.home if cache is None else Path(cache) if isinstance(cache, str) else cache
        with tempfile.TemporaryDirectory(prefix="img2prompt-push-") as made:
            folder = Path(made)
            try:
                files = fill_folder(
                    folder,
                    fitted,
                    repository=repository,
                    license=license,
                    onnx=None if onnx is None else Path(onnx),
                    images=with_images,
                    prompts=with_prompts,
                    home=home,
                    tell=tell,
                )
            except OSError as error:
                raise Img2PromptError(f"{folder} cannot be written: {error.strerror or error}") from error
            found = Pushed(repository, tuple(files))
            for file in files:
                if EMBEDDED in file.holds:
                    note(tell, f"{file.name} holds {file.holds}")
            for name in local_folders(fitted):
                weights = shared_spec(f"local-dir:{name}").partition(":")[2]
                note(tell, f"the weights {weights} are not shared, and whoever uses the run needs them")
            if dry_run:
                return found
            api = HfApi(token=token, library_name="img2prompt-cache")
            with _told(repository, revision), quiet():
                before, head = _prepare(api, repository, private=private, revision=revision)
                _require_ours(repository, before, overwrite=overwrite)
                size = counted(len(files), "file", "files")
                note(tell, f"uploading {size}, {found.bytes / 1e6:,.1f} MB, to {endpoint()}/{repository}")
                commit = _commit(api, folder, found, before, head, revision)
    return Pushed(repository, found.files, commit)


def _commit(
    api: HfApi, folder: Path, wanted: Pushed, before: set[str], head: str | None, revision: str | None
) -> str:
    """Make one commit, on top of `head`, of all files; what an earlier run had besides is removed."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    names = [file.name for file in wanted.files]
    operations: list[Any] = [CommitOperationAdd(name, str(folder / name)) for name in names]
    operations += [CommitOperationDelete(name) for name in OWN if name in before and name not in names]
    done = api.create_commit(
        wanted.repository,
        operations,
        commit_message=f"A run of img2prompt-cache {version('img2prompt-cache')}",
        revision=revision,
        parent_commit=head,
    )
    there, commit = _state(api, wanted.repository, done.oid)
    if lost := [name for name in names if name not in there]:
        raise Img2PromptError(
            f"{wanted.repository} has no {lost[0]} after the commit; is it named in its .gitignore?"
        )
    return commit or done.oid


def _prepare(
    api: HfApi, repository: str, *, private: bool, revision: str | None
) -> tuple[set[str], str | None]:
    """Make the repository and the branch where they are not there; give the files and the commit of it."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        if private and not api.model_info(repository).private:
            raise UsageError(
                f"{repository} is there and public, and `private=True` does not change that; name another",
                parameter="private",
            )
        return _state(api, repository, revision)
    except RevisionNotFoundError:
        pass
    except RepositoryNotFoundError:
        api.create_repo(repository, private=private or None)
    if revision is not None:
        api.create_branch(repository, branch=revision, exist_ok=True)
    return _state(api, repository, revision)


def _state(api: HfApi, repository: str, revision: str | None) -> tuple[set[str], str | None]:
    found = api.model_info(repository, revision=revision)
    return {each.rfilename for each in found.siblings or ()}, found.sha


def _require_ours(repository: str, names: set[str], *, overwrite: bool) -> None:
    """Refuse a repository that holds something else, or a run that is not to be replaced."""
    strangers = sorted(names - {*OWN, *KEPT})
    if strangers or (names - {*KEPT} and INFO not in names):
        other = strangers[0] if strangers else min(names - {*KEPT})
        raise UsageError(
            f"{repository} holds {other}, which is no part of a run; name another", parameter="repository"
        )
    if names - {*MADE_BY_HUB} and not overwrite:
        held = "a run" if INFO in names else min(names - {*MADE_BY_HUB})
        raise UsageError(
            f"{repository} holds {held}; `overwrite=True` puts this run in its place, in a new commit",
            parameter="repository",
        )


@contextmanager
def _told(repository: str, revision: str | None) -> Iterator[None]:
    """Turn what the library of the Hub raises into an error that says what to do."""
    place = f"the model hub ({endpoint()})"
    try:
        yield
    except Img2PromptError:
        raise
    except Exception as error:
        if is_local(error):
            raise
        status, reason = status_of(error), brief(error)
        texts = {
            0: f"{place} did not answer, or went away; check the network or HF_ENDPOINT, and push again",
            400: f"{place} does not take what is to be put into {repository}",
            401: f"{place} does not accept the token in {TOKEN}",
            403: f"the token in {TOKEN} may not write to {repository}",
            404: f"{place} has no {repository}" + (f" with a branch {revision!r}" if revision else ""),
            409: f"{repository} was made or changed by somebody else at the same time; push again",
            412: f"{repository} was changed by somebody else at the same time; push again",
            429: f"{place} takes no more requests for now; push again later",
        }
        text = texts.get(status, f"{place} did not take the files for {repository}; push again")
        raise Img2PromptError(f"{text} ({reason})") from error
