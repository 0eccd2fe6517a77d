"""Prompts composed for held-out rows, against the nearest known prompt and against the prediction itself.

    python benchmarks/compose.py CACHE [CACHE ...] [--run kernel] [--rows 100] [--bank FILE]

Each CACHE has a run that held rows out (`fit --head kernel --run CACHE/runs/kernel`). Of these, one row of
each group of near-identical ones is drawn, up to `--rows`. Prompts of the other rows are the bank; `--bank`
adds texts of a file. Reported are the mean cosines to the true prompt's embedding, with bootstrap intervals
over rows, the cosine to the prediction, processor seconds for an image on one thread, and what PromptStealer
measures: precision and recall of the subject's words and of the modifiers (equal but for case and
punctuation). The mean of the ten nearest prompts' embeddings, which no text has, is there to compare. Prints
a Markdown table and writes `results/compose.json`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from system import save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import used_column
from img2prompt_cache.data.dataset import load_prompts
from img2prompt_cache.models.encoders.base import Encoder
from img2prompt_cache.models.recorded import load_recorded_encoder
from img2prompt_cache.numerics.bootstrap import interval, paired_difference
from img2prompt_cache.numerics.metrics import cosine, unit
from img2prompt_cache.prediction.bank import Bank
from img2prompt_cache.prediction.compose import Composer, split_prompt
from img2prompt_cache.prediction.compose.parts import content_words, key
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.run import Run

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Held:
    """Rows that a run held out: predictions and true prompts, with the bank of all other prompts."""

    vectors: F32
    prompts: list[str]
    targets: F32
    bank: Bank


def held_rows(run: Run, cache: Cache, rows: int, seed: int) -> Held:
    """Draw one held-out row of each group, so that no template counts a hundred times."""
    held = load_validation(run.folder, run)
    text = cache.text("imgId", "prompt")
    prompt_of = dict(zip(text["imgId"], text["prompt"], strict=True))
    prompts, vectors = load_prompts(cache, used_column(cache, run.target, "", "targets"))
    place = {prompt: at for at, prompt in enumerate(prompts)}
    drawn: dict[int, int] = {}
    for row in np.random.default_rng(seed).permutation(len(held.ids)):
        drawn.setdefault(int(held.groups[row]), int(row))
    chosen = [*drawn.values()][:rows]
    true = [prompt_of[held.ids[row]] for row in chosen]
    unseen = {prompt_of[name] for name in held.ids}
    known = [prompt for prompt in prompts if prompt not in unseen]
    return Held(
        held.predictions[chosen].astype(np.float32),
        true,
        vectors[[place[prompt] for prompt in true]],
        Bank.from_pairs(known, vectors[[place[prompt] for prompt in known]]),
    )


def overlap(found: list[str], true: list[str]) -> dict[str, dict[str, float]]:
    """Precision and recall, over all rows together, of the subject's words and of the modifiers."""
    counts = {
        "subject": np.zeros(3),
        "modifiers": np.zeros(3),
    }  # in both, in the found ones, in the true ones
    for one, other in zip(found, true, strict=True):
        parts = [split_prompt(text) for text in (one, other)]
        subjects = [content_words(text.partition(",")[0]) for text in (one, other)]
        modifiers = [frozenset(map(key, part.modifiers)) for part in parts]
        for name, (ours, theirs) in (("subject", subjects), ("modifiers", modifiers)):
            counts[name] += len(ours & theirs), len(ours), len(theirs)
    return {
        name: {"precision": both / max(ours, 1), "recall": both / max(theirs, 1)}
        for name, (both, ours, theirs) in counts.items()
    }


def measure(folder: Path, options: argparse.Namespace, encoders: dict[str, Encoder]) -> dict[str, Any]:
    """Compose for the held-out rows of one cache."""
    cache, run = Cache(folder), Run.load(folder / "runs" / options.run)
    encoder = encoders.setdefault(run.target.spec, load_recorded_encoder(run.target, device="cpu"))
    held = held_rows(run, cache, options.rows, options.seed)
    banks = [held.bank, *([Bank.from_file(options.bank, encoder)] if options.bank else [])]
    started = time.process_time()
    composer = Composer(banks, encoder)
    prepared = time.process_time() - started
    composer.compose(held.vectors[:2])
    started = time.process_time()
    composed, _ = composer.compose(held.vectors)
    seconds = (time.process_time() - started) / len(held.prompts)
    first = [bank.nearest(held.vectors, 1) for bank in banks]
    better = np.argmax([scores[:, 0] for _, scores in first], axis=0)
    nearest = [first[bank][0][row][0] for row, bank in enumerate(better)]
    embeddings = {
        "prediction": held.vectors,
        "nearest": encoder.encode(nearest),
        "composed": encoder.encode(composed),
        "mean_of_ten": unit(held.bank.vectors[held.bank.search(held.vectors, 10)[0]].mean(axis=1)),
    }
    rows = np.arange(len(held.prompts))
    scores = {name: cosine(found, held.targets).astype(float) for name, found in embeddings.items()}
    figures: dict[str, Any] = {
        "rows": len(rows),
        "known_prompts": sum(map(len, banks)),
        "phrases": composer.phrases,
        "phrases_s": prepared,
        "seconds_per_image": seconds,
        "composed_less_nearest": paired_difference(scores["composed"], scores["nearest"], rows),
    }
    for name, values in scores.items():
        figures[name] = {
            "cosine": values.mean(),
            "interval": interval(values, rows),
            "share_of_prediction": values.mean() / scores["prediction"].mean(),
            "cosine_to_prediction": cosine(embeddings[name], held.vectors).mean(),
        }
    for name, texts in (("nearest", nearest), ("composed", composed)):
        figures[name] |= overlap(texts, held.prompts)
        figures[name]["words"] = float(np.mean([len(text.split()) for text in texts]))
    if options.show:
        for row in rows[: options.show]:
            print(f"true      {held.prompts[row]}\n  nearest   {nearest[row]}\n  composed  {composed[row]}")
    return {name: plain(value) for name, value in figures.items()}


def plain(value: Any) -> Any:
    """Round what NumPy computed to four places."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    return round(float(value), 4) if isinstance(value, float | np.floating) else value


def main() -> None:
    """Measure every cache."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("caches", nargs="+", type=Path)
    parser.add_argument("--run", default="kernel")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--show", type=int, default=0, help="print so many of the prompts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoders: dict[str, Encoder] = {}
    figures = {}
    print("| | cosine | share | to the prediction | subject p / r | modifiers p / r | words | s |")
    print("|---|---|---|---|---|---|---|---|")
    for folder in options.caches:
        found = figures[folder.name] = measure(folder, options, encoders)
        for name in ("prediction", "nearest", "composed", "mean_of_ten"):
            row = found[name]
            cells = [
                f"{row['cosine']:.3f}",
                f"{row['share_of_prediction']:.3f}",
                f"{row['cosine_to_prediction']:.3f}",
            ]
            for part in ("subject", "modifiers"):
                cells.append(
                    f"{row[part]['precision']:.2f} / {row[part]['recall']:.2f}" if part in row else ""
                )
            cells.append(f"{row['words']:.1f}" if "words" in row else "")
            cells.append(f"{found['seconds_per_image']:.2f}" if name == "composed" else "")
            print(f"| {folder.name}, {name} | {' | '.join(cells)} |", flush=True)
    print(save("compose-bank" if options.bank else "compose", figures))


if __name__ == "__main__":
    main()
