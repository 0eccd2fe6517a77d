"""Several prompts of one image: lists in a table, rows of a table, and how they are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.sources import SourceOptions, open_source
from img2prompt_cache.sources.several import MOST_PROMPTS, distinct, pack, unpack

NOTE = "{} several prompts; the first counts where there can be only one"


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def listed(folder: Path, **options: str | Path) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """The prompts of each image, and the notes."""
    listing = open_source(folder, SourceOptions(**options)).list()  # type: ignore[arg-type]
    table = listing.table
    columns = [table[name].to_pylist() for name in ("imgId", "prompt")]
    more = table["more_prompts"].to_pylist() if "more_prompts" in table.column_names else [""] * len(table)
    prompts = {
        name: [*([] if first is None else [first]), *(json.loads(others) if others else [])]
        for name, first, others in zip(*columns, more, strict=True)
    }
    return prompts, listing.summary.notes


KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "val2014",
            "filename": "a.jpg",
            "imgid": 0,
            "sentids": [0, 1],
            "split": "test",
            "sentences": [{"raw": "a tram", "tokens": ["a", "tram"]}, {"raw": "a quay", "tokens": []}],
        },
        {"filename": "b.jpg", "filepath": "val2014", "imgid": 1, "sentences": [{"raw": "a dog"}]},
    ],
}
COCO = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
    "annotations": [
        {"image_id": 7, "id": 1, "caption": "a tram"},
        {"image_id": 8, "id": 2, "caption": "a dog"},
        {"image_id": 7, "id": 3, "caption": "a quay\n"},
        {"image_id": 7, "id": 4, "caption": "a tram"},
    ],
}
LINES = [
    {"file_name": "a.jpg", "captions": ["a tram", "a quay", "a tram"]},
    {"file_name": "b.jpg", "captions": ["a dog"]},
]
FILES = {
    "prompts.csv": "imgId,prompt\na,a tram\nb,a dog\na.jpg,a quay\na,a tram\n",
    "prompts.tsv": "image\tcaption\na.jpg#0\ta tram\na.jpg#1\ta quay\nb.jpg#0\ta dog\n",
    "captions.txt": "image,caption\na.jpg,a tram\na.jpg,a quay\nb.jpg,a dog\n",
    "token.txt": "a.jpg#0\ta tram\na.jpg#1\ta quay\nb.jpg#0\ta dog\n",
    "prompts.jsonl": "\n".join(map(json.dumps, LINES)),
    "prompts.json": json.dumps({"a.jpg": ["a tram", "a quay"], "b.jpg": "a dog"}),
    "captions_val.json": json.dumps(COCO),
    "dataset_prompts.json": json.dumps(KARPATHY),
    "metadata.csv": "file_name,text\na.jpg,a tram\na.jpg,a quay\nb.jpg,a dog\n",
    "metadata.jsonl": "\n".join(map(json.dumps, LINES)),
    "nested.csv": 'imgId,prompt\na,"[""a tram"", ""a quay""]"\nb,a dog\n',
}


@pytest.mark.parametrize("name", FILES)
def test_every_prompt_of_an_image_is_kept_once_in_order(tmp_path: Path, name: str) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / name).write_text(FILES[name])
    found, notes = listed(tmp_path)
    assert found == {"a": ["a tram", "a quay"], "b": ["a dog"]}
    assert NOTE.format("1 image has") in notes


def test_lists_in_parquet_and_beside_images_and_in_shards(tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    put(beside, "a.jpg", "b.jpg")
    (beside / "a.json").write_text(json.dumps({"caption": ["a tram", "a quay"]}))
    (beside / "b.json").write_text(json.dumps({"caption": "a dog"}))
    assert listed(beside)[0] == {"a": ["a tram", "a quay"], "b": ["a dog"]}
    packed = pa.table({"image": [b"x", b"y"], "caption": [["a tram", "a quay"], ["a dog"]], "id": ["a", "b"]})
    pq.write_table(packed, tmp_path / "pairs.parquet")
    assert listed(tmp_path / "pairs.parquet")[0] == {"a": ["a tram", "a quay"], "b": ["a dog"]}
    import tarfile

    with tarfile.open(tmp_path / "pairs.tar", "w") as tar:
        for file in sorted(beside.iterdir()):
            tar.add(file, file.name)
    assert listed(tmp_path / "pairs.tar")[0] == {"a": ["a tram", "a quay"], "b": ["a dog"]}


def test_rows_that_repeat_a_pair_are_one_prompt(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    (tmp_path / "prompts.csv").write_text("imgId,prompt\na,x\na,x\nb,y\n")
    listing = open_source(tmp_path).list()
    assert listing.table.to_pydict() == {"imgId": ["a", "b"], "uri": ["a.png", "b.png"], "prompt": ["x", "y"]}
    assert listing.summary.notes == ()


def test_further_columns_of_one_image_keep_their_first_value(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    (tmp_path / "prompts.csv").write_text("imgId,prompt,number,model\na,,0,m\na,x,1,m\nb,y,0,n\na,z,2,m\n")
    listing = open_source(tmp_path).list()
    assert listing.table.to_pydict() == {
        "imgId": ["a", "b"],
        "uri": ["a.png", "b.png"],
        "prompt": ["x", "y"],
        "number": ["0", "0"],
        "model": ["m", "n"],
        "more_prompts": ['["z"]', ""],
    }
    assert listing.summary.notes == (
        NOTE.format("1 image has"),
        "column 'number' differs between rows of one image; the first value is kept",
    )


def test_only_so_many_prompts_of_an_image_are_kept(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    rows = [f"a,prompt {number}" for number in range(40)]
    (tmp_path / "prompts.csv").write_text("\n".join(["imgId,prompt", *rows, "b,x"]))
    found, notes = listed(tmp_path)
    assert found == {"a": [f"prompt {number}" for number in range(MOST_PROMPTS)], "b": ["x"]}
    assert notes[1] == "1 image has more than 16 prompts, of which the first 16 are kept"


def test_a_column_of_the_user_does_not_pass_for_further_prompts(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "prompts.csv").write_text('imgId,prompt,more_prompts\na,x,"[""y""]"\n')
    found, notes = listed(tmp_path)
    assert found == {"a": ["x"]}
    assert notes == ("column 'more_prompts' left out: no name of its own",)


TEXTS = st.text(max_size=6)


@given(st.lists(TEXTS | st.none(), max_size=6))
def test_what_is_packed_is_read_back(prompts: list[str | None]) -> None:
    kept = distinct(prompts)
    assert [prompt.strip() for prompt in kept] == list(
        dict.fromkeys(prompt.strip() for prompt in prompts if prompt and prompt.strip())
    )
    without_null = [prompt.replace("\0", "") for prompt in kept]
    assert unpack(pack(kept)) == distinct(without_null)


@given(
    st.text() | st.sampled_from(["[", "[[" * 9999, "[1, null]", '{"a": 1}', '["\\ud800"]', "[NaN]", '["a"'])
)
def test_any_text_can_be_unpacked(text: str) -> None:
    assert all(prompt.strip() and prompt.encode() for prompt in unpack(text))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y", " ", "z, w", 'q"']))))
def test_rows_of_a_table_are_grouped_as_pandas_groups_them(
    rows: list[tuple[str, str]],
) -> None:
    from tempfile import TemporaryDirectory

    frame = pd.DataFrame([("a", "first"), *rows], columns=["imgId", "prompt"])
    wanted = {
        str(name): list(dict.fromkeys(p for p in group["prompt"] if p.strip()))
        for name, group in frame.groupby("imgId", sort=False)
    }
    with TemporaryDirectory() as folder:
        put(Path(folder), "a.png", "b.png", "c.png")
        frame.to_csv(Path(folder) / "prompts.csv", index=False)
        found, _ = listed(Path(folder))
    assert found == {"a": [], "b": [], "c": []} | wanted
    assert list(found)[: len(wanted)] == list(wanted)
