"""``img2prompt-cache explore``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from img2prompt_cache.reporting.report import Report


def explore(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="A source as for `extract`, or the folder of a cache. Default: `images/` in the current "
            "folder.",
            show_default=False,
        ),
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(metavar="FILE", help="Table of prompts of the source.")
    ] = None,
    format: Annotated[
        str, typer.Option(metavar="NAME", help="Format of the source, if auto fails; see `extract`.")
    ] = "auto",
    id_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of the table with ids or file names.")
    ] = None,
    prompt_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of the table with prompts.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a page: an HTML file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier page.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 if a check finds a problem or a caution.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn at random.")] = 0,
    json: console.Json = False,
) -> None:
    """Look at images and prompts before extracting or fitting: what they are like, and numbered checks.

    No model is loaded. Every image file of a source is read once. The map of prompts and images is made of a
    cache only.
    """
    from img2prompt_cache.reporting.explore import explore as make

    with console.telling() as tell:
        made = make(
            source,
            prompts=prompts,
            format=format,
            id_column=id_column,
            prompt_column=prompt_column,
            out=out,
            overwrite=overwrite,
            seed=seed,
            progress=tell,
        )
    if json:
        console.result_json({**made.to_dict(), "out": None if out is None else str(out)})
    else:
        for line in _lines(made):
            console.result(line)
        if out is not None:
            console.result(f"{out}: {', '.join(made.sections)}")
    if strict and ("checks" not in made.sections or made.sections["checks"].failed):
        raise typer.Exit(1)


def _lines(made: Report) -> Iterator[str]:
    """Tell what was found, in lines."""
    data = made.sections.get("data")
    if data is not None:
        counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in data.counts.items())
        yield f"{made.title}: {counts}"
        if data.prompts is not None:
            prompts, lengths = data.prompts, data.prompts.lengths
            cut = (
                f"; {prompts.cut} longer than the {prompts.limit} tokens that are read" if prompts.cut else ""
            )
            yield (
                f"prompts: {prompts.total}, {prompts.distinct} distinct; {lengths['mean']:.1f} words on "
                f"average, {lengths['min']:g} to {lengths['max']:g}{cut}"
            )
            yield f"words: {', '.join(f'{word} {count}' for word, count in prompts.frequent.items())}"
        if data.images is not None:
            sizes = ", ".join(f"{size} {count}" for size, count in data.images.sizes.items())
            yield f"images: {data.images.measured} of {data.images.of} decoded; {sizes}"
        if data.duplicated is not None:
            yield f"files that are byte for byte an earlier one: {data.duplicated.identical_images}"
        for note in data.notes:
            yield f"note: {console.spelled(note)}"
    checks = made.sections.get("checks")
    for check in checks.checks if checks else ():
        for finding in check.findings:
            yield console.spelled(f"{finding.severity} {check.number}: {finding.text}. {finding.advice}")
    for name, why in made.failed.items():
        yield f"{name} is left out: {why}"
    if checks and not any(check.findings for check in checks.checks):
        yield f"{checks.counts['passed']} checks passed"
