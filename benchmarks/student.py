"""The ladder down to a student that predicts in real time: blend, mlp, student, and the student in int8.

    python benchmarks/student.py DATA --caches DIR [--models blend,mlp,student,student-int8]

DATA is a folder with images and `prompts.csv`; its cache, of the preset `packaged`, lies in DIR/NAME. Ridge,
kernel and mlp are fitted on it with a fifth of the rows held out, by groups; a blend mixes the first two, and
teaches a student on EfficientNet-Lite0 alone; nothing is fitted again on all rows. Each of `--models` is
exported as one ONNX file, `student-int8` by `export --precision int8`. `--timed` of the held-out images are
then predicted by each file as `docs/clients/predict.py` does, one image at a time, on one thread, the files
in turn: decode, resize, run. Prints the latency of an image (processor time, which other programs on the
machine do not lengthen by waiting), the size of the file, and the mean cosine on all held-out rows with its
difference from the teacher and from the model before it, paired, with intervals by bootstrap over groups.
Predictions for that are those that the run was scored on, which its file repeats within 0.0001, and those of
the file in int8. Writes `results/student.json`. What is there from an interrupted call is taken as it is.
"""

from __future__ import annotations

import argparse
import csv
import json
import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from system import extracted, save

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.numerics.bootstrap import effective_groups, interval
from img2prompt_cache.numerics.metrics import cosine

CLIENT = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "clients" / "predict.py"))
MEMBERS = ("ridge", "kernel")
MODELS = ("blend", "mlp", "student", "student-int8")
STUDENT = "packaged:efficientnet-lite0"
ENCODER = "packaged:all-MiniLM-L6-v2"
STAGES = ("decode", "resize", "run")


def call(*arguments: object) -> Any:
    """Run one command as a user would and give its JSON."""
    command = [sys.executable, "-m", "img2prompt_cache.cli", *map(str, arguments), "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def fit(cache: Path, models: list[str]) -> None:
    """Fit what is not there; mlp only where it is to be measured."""
    once = ("--holdout", 0.2, "--no-refit", "--no-leakage-gap")
    wanted: dict[str, tuple[object, ...]] = {name: ("--head", name, *once) for name in (*MEMBERS, "mlp")}
    if "mlp" not in models:
        del wanted["mlp"]
    wanted["blend"] = ("--head", "blend", "--members", ",".join(MEMBERS))
    wanted["student"] = ("--head", "distil", "--teacher", "blend", "--features", STUDENT, "--no-refit")
    for name, options in wanted.items():
        if not (cache / "runs" / name).exists():
            call("fit", *options, "--cache", cache, "--run", cache / "runs" / name)


def export(cache: Path, model: str) -> Path:
    """Write one model as an ONNX file, unless it is there."""
    run, _, precision = model.partition("-")
    out = cache.parent / f"{cache.name}-{model}.onnx"
    if not out.exists():
        options = ("--precision", precision, "--force") if precision else ()
        call("export", run, "--out", out, "--cache", cache, *options)
    return out


class Model:
    """An exported run on one thread."""

    def __init__(self, path: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = json.loads(self.session.get_modelmeta().custom_metadata_map["inputs"])

    def predict(self, path: Path) -> tuple[np.ndarray, list[float]]:
        """Predict for one file; give its vector and the seconds that each stage took the processor."""
        at = [time.process_time()]
        image = CLIENT["open_image"](path)
        at.append(time.process_time())
        feeds = {name: CLIENT["prepare"](image, how)[None] for name, how in self.inputs.items()}
        at.append(time.process_time())
        vector = self.session.run(["vectors"], feeds)[0][0]
        at.append(time.process_time())
        return vector, list(np.diff(at))


def held_out(cache: Cache, run: Path, images: Path) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Find the held-out images of a run, their targets, and their groups."""
    with (run / "validation.csv").open(encoding="utf-8", newline="") as file:
        lines = [*csv.DictReader(file)]
    files = {path.stem: path for path in images.iterdir()}
    rows = {name: row for row, name in enumerate(cache.pandas()["imgId"])}
    targets = cache.numpy(ENCODER)[[rows[line["imgId"]] for line in lines]]
    groups = np.array([int(line["group"]) for line in lines])
    return [files[line["imgId"]] for line in lines], np.asarray(targets, np.float32), groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--caches", type=Path, required=True)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--timed", type=int, default=100)
    options = parser.parse_args()
    cache = extracted(options.data, options.caches)
    names = options.models.split(",")
    fit(cache, names)
    written = {name: export(cache, name) for name in names}
    models = {name: Model(path) for name, path in written.items()}
    files, targets, groups = held_out(Cache(cache), cache / "runs" / "student", options.data / "images")
    for name in names:
        others = held_out(Cache(cache), cache / "runs" / name.partition("-")[0], options.data / "images")[0]
        if others != files:
            raise SystemExit(f"{name} holds out other rows than student, or in another order")
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}
    for model in models.values():
        model.predict(files[0])  # to be warm
    for file in files[:: max(1, len(files) // options.timed)][: options.timed]:
        for name, model in models.items():
            seconds[name].append(model.predict(file)[1])
    vectors = {
        name: np.array([models[name].predict(file)[0] for file in files])
        if "-" in name
        else np.load(cache / "runs" / name / "validation.npy")
        for name in names
    }
    scores = {name: cosine(given, targets).astype(np.float64) for name, given in vectors.items()}
    found: dict[str, Any] = {}
    for before, name in zip([None, *names], names, strict=False):
        stages = 1000 * np.array(seconds[name])
        p50, p95 = np.percentile(stages.sum(1), [50, 95])
        figures: dict[str, Any] = {
            "bytes": sum(p.stat().st_size for p in cache.parent.glob(f"{written[name].name}*")),
            "ms": {"p50": round(float(p50), 2), "p95": round(float(p95), 2)},
            "ms_p50": {k: round(float(v), 2) for k, v in zip(STAGES, np.median(stages, 0), strict=True)},
            "cosine": float(scores[name].mean()),
            "ci95": interval(scores[name], groups),
        }
        for other in dict.fromkeys((names[0], before)):
            if before is not None and other is not None:
                away = scores[name] - scores[other]
                figures[f"minus {other}"] = {"mean": float(away.mean()), "ci95": interval(away, groups)}
        if before is not None and name == f"{before}-int8":
            figures["cosine_to_fp32"] = float(cosine(vectors[name], vectors[before]).mean())
        found[name] = figures
        print(name, json.dumps(figures))
    rows = {
        "timed": options.timed,
        "rows": len(files),
        "groups": len(np.unique(groups)),
        "effective_groups": effective_groups(groups),
        "timer": "processor time, one thread",
    }
    save("student", {"data": options.data.name, **rows, "models": found})


if __name__ == "__main__":
    main()
