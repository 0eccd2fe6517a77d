"""Whether a correction for hubs finds better prompts: prompts near to every prediction, whatever the image.

    python benchmarks/hubness.py RUN [RUN ...]

RUN is the folder of a run that was fitted with `--folds`, beside its cache. For each of its held-out
predictions q the prompts b of a bank are ranked by s(q, b) - alpha h(b), where s is the cosine and h(b) says
how near b is to the predictions for rows of other folds, and of other groups than its own:

- mean: h is the mean cosine over those predictions;
- nearest: the mean over the 10 most similar of them (NNN; Chowdhury et al., 2024);
- predict: as `predict` does it: mean with alpha = 0.5, over all held-out predictions;
- softmax: 0.05 log mean exp(s / 0.05) (QB-Norm; Bogolin et al., 2022).

Banks are the distinct prompts of the row's own fold, as R@k is defined, and all distinct prompts: R@k, and
the mean cosine of the shown prompt with the true one. Then the prompts of the other folds, where the true one
is not there, as for a new image: the mean cosine of the first shown, and of the best of the first five.
Differences from no correction have an interval by bootstrap over groups. Adds to `results/hubness.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from system import load, save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import used_column
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.numerics import hubs
from img2prompt_cache.numerics.bootstrap import interval
from img2prompt_cache.numerics.metrics import TIE, unit
from img2prompt_cache.numerics.similarity_graph import similarity_components
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.run import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Ints = NDArray[np.int64]

TEMPERATURE, TOP = 0.05, 10
CORRECTIONS = {
    "none": ("none", 0.0),
    **{f"{kind} {alpha}": (kind, alpha) for kind in ("mean", "nearest") for alpha in (0.25, 0.5, 0.75, 1.0)},
    "predict": ("predict", hubs.ALPHA),
    **{f"softmax {alpha}": ("softmax", alpha) for alpha in (0.25, 0.5, 1.0)},
}
BANKS = ("own fold", "all", "other folds")


class HeldOut:
    """Predictions of a run for held-out rows, with their targets, groups, folds and distinct prompts."""

    def __init__(self, folder: Path) -> None:
        run = Run.load(folder)
        held = load_validation(folder, run)
        cache = Cache(run.home or run.cache)
        columns = tuple(used_column(cache, each, "Fit it again.") for each in run.features)
        target = used_column(cache, run.target, "Fit it again.", "targets")
        data = load_dataset(cache, columns, target, only=held.ids)
        place = {name: row for row, name in enumerate(data.ids)}
        self.y = unit(data.y[[place[name] for name in held.ids]])
        self.q, self.groups, self.fold = unit(held.predictions), held.groups, held.fold
        alike = similarity_components(self.y, 1 - TIE)
        _, first, self.prompt = np.unique(alike, return_index=True, return_inverse=True)
        self.prompts, self.prompt_groups = self.y[first], self.groups[first]

    def bank(self, name: str, mine: Ints, seen: Ints) -> Ints:
        """Choose the prompts that rows are ranked against."""
        if name == "own fold":
            return np.unique(self.prompt[mine])
        if name == "all":
            return np.arange(len(self.prompts))
        return np.setdiff1d(self.prompt[seen], self.prompt[mine])


def nearness(near: Floats, own: NDArray[np.bool_], kind: str) -> Floats:
    """Say how near each prompt (b,) is to predictions, those of its own group left out.

    `near` are the cosines (b, n), `own` marks which predictions are of the prompt's group.
    """
    if kind == "nearest":
        left = np.where(own, -np.inf, near)
        return np.partition(left, -TOP, axis=1)[:, -TOP:].mean(axis=1)
    values = near if kind == "mean" else np.exp(near / TEMPERATURE)
    mean = np.where(own, 0, values).sum(axis=1) / (~own).sum(axis=1)
    return mean if kind == "mean" else TEMPERATURE * np.log(mean)


def rank(held: HeldOut, name: str) -> dict[str, dict[str, Floats]]:
    """Rank a bank for each row with each correction, and say row by row what was found."""
    keys = ["shown", "best of 5", *(f"r@{k}" for k in (1, 5, 10) if name != "other folds")]
    found = {correction: {key: np.zeros(len(held.y)) for key in keys} for correction in CORRECTIONS}
    for number in np.unique(held.fold):
        mine, seen = np.flatnonzero(held.fold == number), np.flatnonzero(held.fold != number)
        choice = held.bank(name, mine, seen)
        bank = held.prompts[choice]
        plain, near, agree = held.q[mine] @ bank.T, bank @ held.q[seen].T, held.y[mine] @ bank.T
        own = held.prompt_groups[choice][:, None] == held.groups[seen]
        true = np.searchsorted(choice, held.prompt[mine])
        for correction, (kind, alpha) in CORRECTIONS.items():
            if kind == "predict":
                scores = hubs.corrected_queries(held.q[mine], held.q.mean(axis=0)) @ bank.T
            else:
                scores = plain if kind == "none" else plain - alpha * nearness(near, own, kind)
            best = np.argsort(-scores, axis=1)[:, :5]
            cosines = np.take_along_axis(agree, best, axis=1)
            line = found[correction]
            line["shown"][mine], line["best of 5"][mine] = cosines[:, 0], cosines.max(axis=1)
            if name != "other folds":
                truth = np.take_along_axis(scores, true[:, None], axis=1)
                place = (scores > truth - TIE).sum(axis=1)
                for k in (1, 5, 10):
                    line[f"r@{k}"][mine] = place <= k
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    options = parser.parse_args()
    figures: dict[str, Any] = load("hubness") or {}
    for folder in options.runs:
        held = HeldOut(folder)
        table: dict[str, Any] = {}
        for bank in BANKS:
            found = rank(held, bank)
            for correction, line in found.items():
                table.setdefault(bank, {})[correction] = told = {
                    key: {
                        "value": float(values.mean()),
                        "gain": float((values - found["none"][key]).mean()),
                        "interval": interval(values - found["none"][key], held.groups),
                    }
                    for key, values in line.items()
                }
                print(
                    f"{folder.name}, {bank}, {correction}: "
                    + "; ".join(
                        f"{key} {each['value']:.4f} ({each['gain']:+.4f}, {each['interval'][0]:+.4f} to "
                        f"{each['interval'][1]:+.4f})"
                        for key, each in told.items()
                    ),
                    flush=True,
                )
        figures[folder.name] = table
        save("hubness", figures)


if __name__ == "__main__":
    main()
