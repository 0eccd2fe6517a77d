"""``img2prompt-cache demo``."""

from __future__ import annotations

import csv
import json as json_module
import shlex
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from img2prompt_cache.tables import counted

from . import console

HEADS = ("mean", "nearest", "knn", "ridge", "mlp")


def demo(
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Folder of the demo.")] = Path("demo"),
    count: Annotated[int, typer.Option(min=50, max=5000, help="Number of scenes to draw.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the scenes.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing demo.")] = False,
    json: console.Json = False,
) -> None:
    """Draw scenes with prompts, extract, fit five heads, compare them, report, and predict for new scenes."""
    from img2prompt_cache.destination import require_free_place
    from img2prompt_cache.errors import UsageError
    from img2prompt_cache.images.scenes import write_demo

    require_free_place(folder, "folder")
    if overwrite and (folder / "prompts.csv").is_file() and (folder / "new" / "truth.csv").is_file():
        shutil.rmtree(folder)
    elif overwrite and folder.exists():
        raise UsageError(f"--dir {folder} does not hold a demo; name another folder")
    started = time.perf_counter()
    console.note(f"drawing {count} scenes into {folder}")
    write_demo(folder, n=count, seed=seed)
    cache = folder / "cache"
    say = _note if json else console.result
    _run(
        say,
        "extract",
        folder / "images",
        "--prompts",
        folder / "prompts.csv",
        "--cache",
        cache,
        "--preset",
        "packaged",
    )
    runs = [_run(say, "fit", "--head", head, "--cache", cache) for head in HEADS]
    board = _run(say, "compare", "--cache", cache)
    best = next(run["run"] for run in board["runs"])
    found = _run(say, "predict", folder / "new", "--run", best, "--top-k", 3, "--cache", cache)
    page = _report(say, cache)
    predictions = _with_truth(folder / "new" / "truth.csv", found["predictions"])
    if json:
        console.result_json(
            {
                "dir": str(folder),
                "runs": board["runs"],
                "predictions": predictions,
                "report": page,
                "seconds": round(time.perf_counter() - started, 3),
            }
        )
        return
    console.result("\n" + "\n".join(_shown(prediction, folder) for prediction in predictions))
    console.result(
        f"\n{len(runs)} heads and {counted(len(predictions), 'prediction', 'predictions')} in "
        f"{time.perf_counter() - started:.0f} s"
    )
    if page:
        console.result(f"open {page} in a browser: pictures, scores and single cases")
    if find_spec("fastapi"):
        console.result(
            f"`img2prompt-cache app --cache {shlex.quote(str(cache))}` opens a page to drop images into"
        )


def _note(text: str) -> None:
    for line in text.split("\n"):
        console.note(line)


def _run(say: Any, *arguments: object) -> dict[str, Any]:
    """Run one command as a person would, show it and what it says, and give its JSON."""
    words = [str(argument) for argument in arguments]
    say(f"\n$ img2prompt-cache {shlex.join(words)}")
    with console.stderr.hidden():  # the command shows its own
        done = subprocess.run(
            [
                *(sys.executable, "-m", "img2prompt_cache.cli", *words, "--json"),
                *(["--quiet"] if console.stderr.quiet else []),
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        raise typer.Exit(done.returncode)
    found: dict[str, Any] = json_module.loads(done.stdout)
    say(_told(words[0], found))
    return found


def _report(say: Any, cache: Path) -> str | None:
    """Make the report, where the extra that it takes is installed."""
    if not all(map(find_spec, ("jinja2", "matplotlib", "wordcloud"))):
        say("no report: it takes `pip install 'img2prompt-cache[report]'`")
        return None
    page = cache.parent / "report.html"
    return str(_run(say, "report", "--cache", cache, "--out", page, "--overwrite")["out"])


def _told(command: str, found: dict[str, Any]) -> str:
    if command == "extract":
        return (
            f"{counted(found['ok'], 'image', 'images')} cached, {found['failed']} failed, in "
            f"{found['seconds']:.1f} s"
        )
    if command == "fit":
        metrics = found["metrics"]
        return (
            f"cosine {metrics['cosine']:.4f} on {counted(metrics['n'], 'held-out row', 'held-out rows')}, "
            f"{found['seconds']:.1f} s"
        )
    if command == "report":
        sections = [name for name, data in found.items() if isinstance(data, dict) and name != "failed"]
        return f"{found['out']}: {', '.join(sections)}"
    if command == "compare":
        rows = [[run["head"], run["cosine"], run["r@1"], run["r@5"], run["seconds"]] for run in found["runs"]]
        return console.table(["head", "cosine", "R@1", "R@5", "seconds"], rows)
    return counted(found["rows"], "prediction", "predictions")


def _with_truth(table: Path, predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with table.open(encoding="utf-8", newline="") as file:
        truth = {row["imgId"]: row["prompt"] for row in csv.DictReader(file)}
    return [{**prediction, "truth": truth[prediction["imgId"]]} for prediction in predictions]


def _shown(prediction: dict[str, Any], folder: Path) -> str:
    nearest = [f"  {near['cosine']:.3f}  {near['prompt']}" for near in prediction["prompts"]]
    return "\n".join(
        [f"{folder / 'new' / prediction['imgId']}.png", f"  truth  {prediction['truth']}", *nearest]
    )
