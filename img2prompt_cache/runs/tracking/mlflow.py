"""MLflow: a run for each entry."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from img2prompt_cache.runs.tracking.entry import Entry
from img2prompt_cache.tables import shorten

EXPERIMENT = "img2prompt-cache"
"""Unless the user's MLFLOW_EXPERIMENT_NAME names another."""

MOST_METRICS, MOST_PARAMETERS, LONGEST = 1000, 100, 6000
"""Of a request, and of a parameter in characters; see the limits of MLflow's REST API."""


def write_mlflow(entry: Entry, home: Path) -> str:
    """Write a run to the store of MLFLOW_TRACKING_URI, or else to `mlflow.db` and `mlflow/` in `home`."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when the library is imported
    from mlflow import MlflowClient
    from mlflow.entities import Param

    own = os.environ.get("MLFLOW_TRACKING_URI")
    place = own or f"sqlite:///{home / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=place)
    experiment = _experiment(client, None if own else (home / "mlflow").as_uri())
    tags = {"kind": entry.kind, "group": entry.group}
    run = client.create_run(experiment, run_name=entry.name, tags=tags)
    key = run.info.run_id
    params = [Param(_key(name), shorten(str(value), LONGEST)) for name, value in entry.settings.items()]
    for some in _parts(params, MOST_PARAMETERS):
        client.log_batch(key, params=some)
    for some in _parts([*_metrics(entry)], MOST_METRICS):
        client.log_batch(key, metrics=some)
    for file in entry.files:
        client.log_artifact(key, str(file))
    client.set_terminated(key)
    return place


def _experiment(client: Any, artifacts: str | None) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    known = client.get_experiment_by_name(name)
    found: str = known.experiment_id if known else client.create_experiment(name, artifacts)
    return found


def _metrics(entry: Entry) -> Iterator[Any]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    for name, value in entry.metrics.items():
        yield Metric(_key(name), value, now, 0)
    for step, values in enumerate(entry.curves):
        for name, value in values.items():
            yield Metric(f"history/{_key(name)}", value, now, step)


def _parts(values: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + most] for start in range(0, len(values), most))


def _key(name: str) -> str:
    """Spell a name in the characters that MLflow takes."""
    return re.sub(r"[^\w. /-]", "_", name.replace("@", "_at_"))
