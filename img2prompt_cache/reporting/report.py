"""A report of a cache and its runs: gathered section by section, shown as one page, or given as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2prompt_cache.cache.manifest_file import DEFAULT_CACHE
from img2prompt_cache.cache.opening import open_cache
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.progress import Callback, listening, warn
from img2prompt_cache.reporting.atlas import check_atlas, write_atlas
from img2prompt_cache.reporting.damage import DATA_ERRORS, told
from img2prompt_cache.reporting.material import Material
from img2prompt_cache.reporting.output import check_free, write_folder, write_page
from img2prompt_cache.reporting.page import Page
from img2prompt_cache.reporting.sections import load_sections

if TYPE_CHECKING:
    from img2prompt_cache.runs.run import AnyRun


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Report:
    """What a cache and its runs hold, section by section.

    Attributes
    ----------
    title : str
    created : str
        UTC, ISO 8601.
    sections : dict of str to object
        The data of each section, a dataclass, by its name; sections without any data are left out.
    failed : dict of str to str
        Sections that could not be made, and why.
    material : Material
        Where pictures are from.
    """

    title: str
    created: str
    sections: dict[str, Any]
    failed: dict[str, str]
    material: Material

    def to_dict(self) -> dict[str, Any]:
        """Give the data of all sections as JSON values."""
        sections = {name: plain(data) for name, data in self.sections.items()}
        return {"title": self.title, "created": self.created, **sections, "failed": dict(self.failed)}

    def html(self, page: Page | None = None) -> str:
        """Give the report as one HTML page.

        Raises
        ------
        Img2PromptError
            If the extra `report` is not installed.
        """
        page = page or Page(self.material.pictures)
        self.material.pictures.load(
            row for data in self.sections.values() for row in getattr(data, "shown", ())
        )
        titles = {section.NAME: section.TITLE for section in load_sections()}
        made = [
            {"name": name, "title": titles[name], "body": page.section(name, data)}
            for name, data in self.sections.items()
        ]
        return page.whole(
            self.title,
            made,
            created=self.created,
            failed=self.failed,
            of_cache=self.material.cache is not None,
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the report as one file.

        Parameters
        ----------
        path : str or pathlib.Path
            Its name ends with ``.html``.
        overwrite : bool
            Replace an earlier report.

        Raises
        ------
        UsageError
            If something else is there.
        Img2PromptError
            If it cannot be written, or the extra `report` is not installed.
        """
        check_free(Path(path), folder=False, overwrite=overwrite)
        write_page(Path(path), self.html())

    def save_folder(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the report as a folder: ``index.html`` and its pictures as files beside it.

        Raises
        ------
        UsageError, Img2PromptError
            As `save`.
        """
        check_free(Path(path), folder=True, overwrite=overwrite)
        write_folder(Path(path), self.material.pictures, self.html)

    def __repr__(self) -> str:
        return f"Report({self.title!r}: {', '.join(self.sections)})"

    def _repr_html_(self) -> str:
        # In a frame of its own, so that neither styles nor scripts meet those of the notebook.
        return (
            '<iframe sandbox="allow-scripts" style="width: 100%; height: 80vh; border: 0" '
            f'title="{escape(self.title)}" srcdoc="{escape(self.html())}"></iframe>'
        )


def report(
    cache: str | Path | Cache = DEFAULT_CACHE,
    runs: Sequence[AnyRun] | None = None,
    *,
    out: str | Path | None = None,
    folder: bool = False,
    overwrite: bool = False,
    compose: bool = False,
    atlas: str | Path | None = None,
    seed: int = 0,
    progress: bool | Callback = False,
) -> Report:
    """Report what a cache and its runs hold: the data, the heads, single cases, and what to look at.

    Nothing is fitted, and no model is loaded unless `compose` is set. Images are read again from where they
    were cached from; where they are gone, the report has no pictures and says so.

    Parameters
    ----------
    cache : str, pathlib.Path or Cache
    runs : sequence of Run, str or pathlib.Path, optional
        Those to report; every run of the cache if None.
    out : path, optional
        Also write the report there: a file whose name ends with ``.html``, or with `folder` a folder.
    folder : bool
        Show every row, with pictures in files of their own beside the page.
    overwrite : bool
        Replace an earlier report.
    compose : bool
        Also compose a prompt for each case that is shown, which takes the text encoder, and its time.
    atlas : path, optional
        Also write the points of the map as a table for the tool embedding-atlas: a file whose name ends with
        ``.parquet``; see `img2prompt_cache.reporting.atlas.write_atlas`.
    seed : int
        Of whatever is drawn at random.
    progress : bool or callable
        See `img2prompt_cache.progress.listening`.

    Returns
    -------
    Report

    Raises
    ------
    UsageError
        If there is no cache, a run that is named is not there, or something else is at `out` or
        `atlas`.
    Img2PromptError
        If the rows of the cache are damaged, the report cannot be written, or it is to be and the extra
        `report` is not installed; with `atlas`, if there is no map.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> ipc.report("cache/default").save("report.html")  # doctest: +SKIP
    """
    opened = open_cache(cache)
    if out is not None:
        check_free(Path(out), folder=folder, overwrite=overwrite)
    if atlas is not None:
        check_atlas(Path(atlas), overwrite=overwrite)
    with listening(progress) as tell:
        made = gather(Material.of_cache(opened, runs, seed=seed, everything=folder, compose=compose), tell)
        if out is not None and folder:
            made.save_folder(out, overwrite=overwrite)
        elif out is not None:
            made.save(out, overwrite=overwrite)
        if atlas is not None:
            write_atlas(Path(atlas), made.sections.get("map"), made.material)
    return made


def gather(material: Material, tell: Callback, names: tuple[str, ...] = ()) -> Report:
    """Gather the data of the sections of these names, or all. One that fails does not keep others back."""
    sections, failed = {}, {}
    for section in load_sections(names):
        try:
            data = section.gather(material, tell)
        except DATA_ERRORS as error:
            failed[section.TITLE] = told(error)
            warn(tell, f"{section.TITLE} is left out: {failed[section.TITLE]}")
        else:
            if data is not None:
                sections[section.NAME] = data
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Report(material.name, created, sections, failed, material)


def plain(value: Any) -> Any:
    """Turn data of a section into JSON values; numbers that are not finite become None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
