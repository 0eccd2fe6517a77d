"""``img2prompt-cache influence``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console

if TYPE_CHECKING:
    from img2prompt_cache.tuning.importance import Influence
    from img2prompt_cache.tuning.study import FinishedTrial

HEADER = (
    *("setting", "main effect", "by chance", "value", "scored", "pruned", "failed"),
    *("mean", "low", "high", "sd", "best"),
)


def influence(
    study: Annotated[str, typer.Argument(help="A file that `tune` made, or its name in the cache.")],
    cache: console.CacheOption = console.DEFAULT_CACHE,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table as CSV.", show_default=False)
    ] = None,
    json: console.Json = False,
) -> None:
    """Show what each setting of a search did to the score.

    Mean, sd and best are those of the scored trials that had the value, or one within the bounds; low and
    high are the 95 % interval of the mean. The main effect is the setting's own share of the variance of the
    score (functional ANOVA on a random forest), told from 50 scored trials on; by chance is the highest share
    in 20 tries with the scores shuffled among the trials. An effect that is not above it says nothing.
    """
    from img2prompt_cache.destination import begins_with, require_earlier_output, require_free_place
    from img2prompt_cache.tuning.finished import load_study

    if out:
        require_free_place(out, "out", inputs=[study])
        require_earlier_output(
            out, "out", "influence", lambda path: begins_with(path, rb"setting,main effect,")
        )
    found = load_study(study, cache)
    table = found.influence()
    if out:
        _write(out, table)
    if json:
        data = {"study": str(found.file), "head": found.head, **counts(found.trials)}
        console.result_json({**data, "settings": values(table)})
        return
    console.result(f"{found.file}: head {found.head}, {summary(found.trials)}\n{layout(table)}")


def summary(trials: list[FinishedTrial]) -> str:
    """Say how many trials ended how."""
    return ", ".join(f"{number} {state}" for state, number in counts(trials)["trials"].items())


def counts(trials: list[FinishedTrial]) -> dict[str, dict[str, int]]:
    """Count the trials by how they ended."""
    from img2prompt_cache.tuning.study import COMPLETE, FAILED, PRUNED

    names = {"scored": COMPLETE, "pruned": PRUNED, "failed": FAILED}
    return {"trials": {name: sum(t.state == state for t in trials) for name, state in names.items()}}


def values(table: list[Influence]) -> list[dict[str, Any]]:
    """Give the influence of each setting as JSON values."""
    from dataclasses import asdict

    return [asdict(each) for each in table]


def layout(table: list[Influence]) -> str:
    """Lay out the influence of each setting, one row for each of its values, and what no setting explains."""
    from img2prompt_cache.tuning.importance import FEWEST, interactions

    rows = [["–" if cell is None else cell for cell in row] for row in _rows(table)]
    shared = interactions(table)
    if shared is not None:
        below = f"interactions of settings, and noise: {shared:.4f} of the variance"
    else:
        below = (
            f"main effects are told from {FEWEST} trials with different scores on; until then compare the "
            "means of the values by their 95 % intervals, low to high"
        )
    return f"{console.table(HEADER, rows)}\n{below}"


def _rows(table: list[Influence]) -> list[list[object]]:
    return [
        [
            *(each.setting, each.main_effect, each.chance, m.value, m.scored, m.pruned, m.failed, m.mean),
            *(m.ci95 or (None, None)),
            *(m.sd, m.best),
        ]
        for each in table
        for m in each.marginals
    ]


def _write(out: Path, table: list[Influence]) -> None:
    import csv
    import io

    from img2prompt_cache.errors import Img2PromptError
    from img2prompt_cache.files import write_atomically
    from img2prompt_cache.tables import guard_cell

    text = io.StringIO()
    rows = [[guard_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in _rows(table)]
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    try:
        write_atomically(out, text.getvalue().encode())
    except OSError as error:
        raise Img2PromptError(f"--out {out} cannot be written: {error.strerror or error}") from None
