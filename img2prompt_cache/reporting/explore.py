"""Exploring data before anything is fitted: a cache without its runs, or a source that is not extracted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from img2prompt_cache.cache.manifest_file import NAME
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.progress import Callback, listening
from img2prompt_cache.reporting.material import Material
from img2prompt_cache.reporting.output import check_free
from img2prompt_cache.reporting.report import Report, gather
from img2prompt_cache.sources import SourceOptions, find_default, open_source, table_of_prompts
from img2prompt_cache.sources.remote import is_url

if TYPE_CHECKING:
    from img2prompt_cache.sources import Source

SECTIONS = ("checks", "data", "map")


def explore(
    source: str | Path | Cache | Source | None = None,
    *,
    prompts: str | Path | None = None,
    format: str = "auto",
    id_column: str | None = None,
    prompt_column: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    seed: int = 0,
    progress: bool | Callback = False,
) -> Report:
    """Report what data are like before anything is fitted, or even extracted. No model is loaded.

    Of a source, every image file is read once, and up to 1,000 are decoded. The map is that of a cache: a
    source has no embeddings yet.

    Parameters
    ----------
    source : str, pathlib.Path, Cache or Source, optional
        A cache, whose runs are left aside, or a source as `extract` takes it; the default source in the
        current folder if None.
    prompts, format, id_column, prompt_column
        Of a source that is named by its path, as for `extract`.
    out : path, optional
        Also write the page there: a file whose name ends with ``.html``.
    overwrite : bool
        Replace an earlier page.
    seed : int
        Of whatever is drawn at random.
    progress : bool or callable
        See `img2prompt_cache.progress.listening`.

    Returns
    -------
    Report
        Of the sections ``checks``, ``data`` and, of a cache, ``map``.

    Raises
    ------
    UsageError
        If there is no such source or cache, it cannot be listed, or something else is at `out`.
    Img2PromptError
        If the rows of a cache are damaged, the page cannot be written, or it is to be and the extra `report`
        is not installed.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> ipc.explore("images").sections["data"].counts["rows"]
    6
    """
    if out is not None:
        check_free(Path(out), folder=False, overwrite=overwrite)
    options = SourceOptions(format, table_of_prompts(prompts), id_column, prompt_column)
    with listening(progress) as tell:
        opened = _open(source, options)
        if isinstance(opened, Cache):
            material = Material.of_data(opened, seed=seed)
        else:
            material = Material.of_source(opened, seed=seed, tell=tell)
        made = gather(material, tell, SECTIONS)
        if out is not None:
            made.save(out, overwrite=overwrite)
    return made


def _open(source: str | Path | Cache | Source | None, options: SourceOptions) -> Cache | Source:
    """Open what was named: a folder with a manifest is a cache, which takes no options of a source."""
    if source is None:
        return open_source(find_default(Path.cwd()), options)
    if isinstance(source, str | Path):
        path = Path(source)
        if is_url(source) or not (path / NAME).is_file():
            return open_source(source, options)
        source = Cache(path)
    if options != SourceOptions():
        raise UsageError(
            "`format`, `prompts`, `id_column` and `prompt_column` go with a source named by its path, "
            "not with a cache or an open source"
        )
    return source
