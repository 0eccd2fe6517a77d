"""What this package writes beside images is no table of prompts."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from img2prompt_cache.data.dedup import HEADER
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction.listing import list_pairs
from img2prompt_cache.prediction.outputs.formats import open_writer
from img2prompt_cache.sources import open_source
from img2prompt_cache.sources.owntables import is_own_table


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "ab":
        inside = PngInfo()
        inside.add_text("parameters", f"true {name}\nSteps: 20, Sampler: Euler, Seed: 3")
        Image.new("RGB", (2, 2)).save(folder / f"{name}.png", pnginfo=inside)
    return folder


def write(path: Path, columns: Mapping[str, object] = MappingProxyType({})) -> None:
    """Write the predictions of two images, with the nearest prompts where the format keeps them."""
    with open_writer(path, 3) as writer:
        nearest = [[("wrong", 0.9), ("worse", 0.8)], [("wrong", 0.7), ("worse", 0.6)]]
        prompts = nearest if writer.keeps_prompts else None
        writer.write(["a", "b"], np.eye(2, 3, dtype=np.float32), prompts, columns)


NAMES = ["p.jsonl", "p.parquet", "p.csv", "p.npy", "prompts.jsonl", "prompts.parquet", "prompts.csv"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("columns", [{}, {"expected": [0.5, 0.25]}, {"expected": [1, 0], "flagged": [0, 1]}])
def test_predictions_beside_images_are_not_read_as_prompts(
    images: Path, name: str, columns: Mapping[str, object]
) -> None:
    write(images / name, columns)
    table = list_pairs(open_source(images))[1].table
    assert dict(zip(table["imgId"].to_pylist(), table["prompt"].to_pylist(), strict=True)) == {
        "a": "true a",
        "b": "true b",
    }
    written = images / name.replace(".npy", ".ids.csv")
    assert is_own_table(written)
    if not name.startswith("prompts."):
        with pytest.raises(UsageError, match="is not a source"):
            open_source(written)


def test_predictions_printed_as_json_are_not_read_as_prompts(images: Path) -> None:
    nearest = [{"imgId": name, "prompts": [{"prompt": "wrong", "cosine": 0.9}]} for name in "ab"]
    (images / "p.json").write_text(json.dumps({"rows": 2, "bad": {}, "predictions": nearest}))
    assert list_pairs(open_source(images))[1].table["prompt"].to_pylist() == ["true a", "true b"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("above", [False, True])
def test_they_are_not_recommended_where_prompts_are_missing(tmp_path: Path, name: str, above: bool) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.png").touch()
    write((tmp_path if above else folder) / name)
    (tmp_path / "kept.csv").write_text(",".join(HEADER) + "\na,1,0,0\n")
    with pytest.raises(Img2PromptError, match="nothing beside them looks like captions"):
        list_pairs(open_source(folder))


def test_tables_of_the_users_with_such_columns_stay_tables(images: Path) -> None:
    (images / "p.csv").write_text("imgId,keep,prompt\na,1,mine\n")
    assert list_pairs(open_source(images))[1].table["prompt"].to_pylist() == ["mine", None]
    (images / "p.csv").unlink()
    table = pa.table({"imgId": ["a"], "prompt": ["mine"], "embedding": [[0.1]]})
    pq.write_table(table, images / "p.parquet")
    assert list_pairs(open_source(images))[1].table["prompt"].to_pylist() == ["mine", None]
    (images / "p.parquet").unlink()
    (images / "p.jsonl").write_text('{"imgId": "a", "prompts": ["mine", "other"]}\n')
    assert list_pairs(open_source(images))[1].table["prompt"].to_pylist() == ["mine", None]
