"""Tables of prompts: reading them, choosing columns, matching rows with images."""

import json
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.sources import open_source
from img2prompt_cache.sources.base import SourceOptions
from img2prompt_cache.sources.tablefile import read_table


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def kaggle(folder: Path, table: str, *images: str) -> Path:
    put(folder, *(f"images/{name}" for name in images))
    (folder / "prompts.csv").write_bytes(table.encode())
    return folder


def rows(path: Path, **options: str | Path) -> list[tuple[str, str, str | None]]:
    table = open_source(path, SourceOptions(**options)).list().table  # type: ignore[arg-type]
    return list(zip(*(table[name].to_pylist() for name in ("imgId", "uri", "prompt")), strict=True))


def test_kaggle_layout_keeps_the_order_of_the_table(tmp_path: Path) -> None:
    kaggle(
        tmp_path,
        "imgId,prompt\nb,a dog\n00123,NA\na,null\n",
        "a.png",
        "b.jpg",
        "00123.webp",
        "z.png",
        "c.gif",
    )
    source = open_source(tmp_path)
    listing = source.list()
    assert rows(tmp_path) == [
        ("b", "images/b.jpg", "a dog"),
        ("00123", "images/00123.webp", "NA"),
        ("a", "images/a.png", "null"),
        ("c", "images/c.gif", None),
        ("z", "images/z.png", None),
    ]
    assert (listing.summary.pairs, listing.summary.without_prompt, listing.summary.without_image) == (3, 2, 0)
    assert source.read("images/b.jpg") == b"images/b.jpg"
    assert source.settings == {"format": "table"}


def test_a_prompt_of_nothing_but_nul_is_none(tmp_path: Path) -> None:
    kaggle(tmp_path, "imgId,prompt\na,x\0y\nb, \0\n", "a.png", "b.png")
    listing = open_source(tmp_path).list()
    assert listing.table["prompt"].to_pylist() == ["xy", None]
    assert (listing.summary.pairs, listing.summary.without_prompt) == (1, 1)


@pytest.mark.parametrize("named", [".", "images", "prompts.csv"])
def test_same_pairs_from_the_folder_its_images_or_its_table(tmp_path: Path, named: str) -> None:
    kaggle(tmp_path, "imgId,prompt\nb,x\na,y\n", "a.png", "b.png")
    source = open_source(tmp_path / named)
    table = source.list().table
    assert table["imgId"].to_pylist() == ["b", "a"]
    assert [source.read(uri) for uri in table["uri"].to_pylist()] == [b"images/b.png", b"images/a.png"]


def test_images_beside_the_table(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.JPG")
    (tmp_path / "list.csv").write_text("image_id,caption\na,one\nb,two\n")
    assert rows(tmp_path) == [("a", "a.png", "one"), ("b", "b.JPG", "two")]


def test_ids_may_be_paths_with_suffix(tmp_path: Path) -> None:
    put(tmp_path, "images/x/a.png", "images/x/v1.5.png", "images/b.png.png")
    (tmp_path / "prompts.csv").write_text(
        "file_name,text\nimages/x/a.png,one\n./x/v1.5,two\nb.png.png,three\ngone.png,four\n"
    )
    assert rows(tmp_path) == [
        ("x/a", "images/x/a.png", "one"),
        ("x/v1.5", "images/x/v1.5.png", "two"),
        ("b.png", "images/b.png.png", "three"),
    ]
    assert open_source(tmp_path).list().summary.without_image == 1


@pytest.mark.parametrize("blank", ["", "   ", '"\n"', "\u3000"])
def test_a_blank_prompt_is_none(tmp_path: Path, blank: str) -> None:
    kaggle(tmp_path, f"imgId,prompt\na,{blank}\nb, kept as it is \ngone,{blank}\n", "a.png", "b.png")
    assert [row[2] for row in rows(tmp_path)] == [None, " kept as it is "]
    assert open_source(tmp_path).list().summary.without_image == 0


def test_quotes_line_breaks_crlf_bom_and_scripts(tmp_path: Path) -> None:
    prompts = ['a "quoted", cat', "two\nlines", "猫, 🐈", "Ünïcode", "א ב"]
    body = "".join(f'{i},"{p.replace(chr(34), chr(34) * 2)}"\r\n' for i, p in enumerate(prompts))
    kaggle(tmp_path, "\ufeffimgId,prompt\r\n" + body, *(f"{i}.png" for i in range(5)))
    assert [row[2] for row in rows(tmp_path)] == prompts


def test_names_in_any_script(tmp_path: Path) -> None:
    kaggle(tmp_path, "imgId,prompt\n猫 🐈,x\na b'c,y\n", "猫 🐈.png", "a b'c.png")
    assert [row[0] for row in rows(tmp_path)] == ["猫 🐈", "a b'c"]


def test_every_kind_of_table_gives_the_same(tmp_path: Path) -> None:
    ids, prompts, group = ["007", "b"], ["2020-01-01", "1.0"], ["1", "2"]
    body = [
        dict(zip(("imgId", "prompt", "group"), row, strict=True))
        for row in zip(ids, prompts, group, strict=True)
    ]
    texts = {
        "csv": "imgId,prompt,group\n007,2020-01-01,1\nb,1.0,2\n",
        "tsv": "imgId\tprompt\tgroup\n007\t2020-01-01\t1\nb\t1.0\t2\n",
        "jsonl": "\n".join(json.dumps(row | {"group": int(row["group"]), "tags": [1]}) for row in body)
        + "\n\n",
    }
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        folder = tmp_path / suffix
        put(folder, "007.png", "b.png")
        if suffix == "parquet":
            columns = {
                "imgId": ids,
                "prompt": pa.array(prompts).dictionary_encode(),
                "group": [1, 2],
                "tags": [[1], [2]],
            }
            pq.write_table(pa.table(columns), folder / "prompts.parquet")
        else:
            (folder / f"prompts.{suffix}").write_text(texts[suffix])
        table = open_source(folder).list().table
        assert table.drop_columns("uri").to_pydict() == {"imgId": ids, "prompt": prompts, "group": group}, (
            suffix
        )


def test_short_further_columns_are_kept_and_long_ones_noted(tmp_path: Path) -> None:
    table = f"imgId,prompt,group,story,status,,\na,x,007,{'s' * 257},ok,1,2\n"
    kaggle(tmp_path, table, "a.png", "b.png")
    listing = open_source(tmp_path).list()
    assert listing.table.column_names == ["imgId", "uri", "prompt", "group"]
    assert listing.table["group"].to_pylist() == ["007", ""]
    assert "'story' left out: a value of 257 characters" in " ".join(listing.summary.notes)
    assert any("'status'" in note for note in listing.summary.notes)


def test_columns_may_be_named(tmp_path: Path) -> None:
    kaggle(tmp_path, "nr,imgId,words,prompt\na,zzz,one,two\n", "a.png")
    options = {"id_column": "nr", "prompt_column": "words"}
    assert rows(tmp_path, **options) == [("a", "images/a.png", "one")]
    assert open_source(tmp_path, SourceOptions(**options)).settings == {"format": "table", **options}  # type: ignore[arg-type]


def test_the_table_may_be_named(tmp_path: Path) -> None:
    put(tmp_path, "pics/a.png", "pics/prompts.csv")
    table = tmp_path / "elsewhere.tsv"
    table.write_text("imgId\tprompt\na\tyes\n")
    assert rows(tmp_path / "pics", prompts=table) == [("a", "a.png", "yes")]
    assert open_source(tmp_path / "pics", SourceOptions(prompts=table)).settings["prompts"] == str(table)


def test_other_tables_are_noted(tmp_path: Path) -> None:
    kaggle(tmp_path, "imgId,prompt\na,x\n", "a.png")
    (tmp_path / "also.csv").write_text("id,caption\na,y\n")
    (tmp_path / "meta.csv").write_text("id,model\na,y\n")
    (tmp_path / "broken.jsonl").write_text("[")
    assert open_source(tmp_path).list().summary.notes == (
        "1 other tables passed over for prompts.csv (first: also.csv)",
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("imgId,prompt\na,x\na,y\n", "imgId 'a' twice"),
        ("imgId,prompt\na,x\na.png,y\n", "imgId 'a' twice"),
        ("imgId,prompt\na,x\n,y\n", "row 2: the id '' has no id"),
        ("imgId,prompt\n../a,x\n", "row 1: the id '../a' names a file outside"),
        ("imgId,prompt\na,x\nsub/../../a,x\n", "row 2.*outside"),
        ("imgId,prompt\n/etc/passwd,x\n", "outside"),
        ("imgId,prompt\nC:\\a.png,x\n", "outside"),
        ("imgId,prompt\n..\\a.png,x\n", "outside"),
        ("imgId,prompt\n", "has no rows"),
        ("", "cannot be read as a table"),
        (
            "imgId,words\na,x\n",
            "no column named prompt or text or caption; its columns are imgId, words.*`prompt_column`",
        ),
        ("nr,prompt\na,x\n", "no column named imgId.*`id_column`"),
        ("imgId,prompt,prompt\na,x,y\n", "2 columns 'prompt'"),
        ("imgId,prompt\na,x,y\n", "prompts.csv cannot be read.*quote every prompt"),
        ("imgId,prompt\nq,x\n", "no row of .* names an image.*'q'.*'a.png'"),
    ],
)
def test_a_wrong_table_is_told(tmp_path: Path, table: str, message: str) -> None:
    kaggle(tmp_path, table, "a.png")
    with pytest.raises(UsageError, match=message):
        open_source(tmp_path).list()


def test_a_named_column_that_is_not_there(tmp_path: Path) -> None:
    kaggle(tmp_path, "imgId,prompt\na,x\n", "a.png")
    with pytest.raises(UsageError, match=r"no column 'promt'; its columns are imgId, prompt"):
        rows(tmp_path, prompt_column="promt")


@pytest.mark.parametrize(
    "data", ["imgId,prompt\na,caf\xe9\n".encode("latin-1"), "imgId,prompt\na,x\n".encode("utf-16")]
)
def test_a_table_that_is_not_utf8(tmp_path: Path, data: bytes) -> None:
    kaggle(tmp_path, "", "a.png")
    (tmp_path / "prompts.csv").write_bytes(data)
    with pytest.raises(UsageError, match=r"prompts\.csv is not UTF-8; save it as"):
        open_source(tmp_path).list()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"[" * 1_000_000, "line 1, is not JSON"),
        (b'{"imgId": "a"', "line 1, is not JSON"),
        (b'{"imgId": "a", "prompt": "x"}\n[1]', "line 2, is not a JSON object"),
        (b'{"imgId": "a", "prompt": "\\ud800"}', "surrogate"),
        (b'{"imgId": "a", "prompt": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b'{"imgId": "a", "prompt": "\xff"}', "is not UTF-8"),
    ],
)
def test_wrong_json_lines(tmp_path: Path, lines: bytes, message: str) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "prompts.jsonl").write_bytes(lines)
    with pytest.raises(UsageError, match=message):
        open_source(tmp_path).list()


def test_json_lines_may_lack_fields(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": "1"}\n{"b": true, "c": {}}\n{"a": null, "b": 1.5, "c": "x"}\n')
    assert read_table(path).to_pydict() == {"a": ["1", None, None], "b": [None, "true", "1.5"]}


def test_two_images_that_differ_in_suffix(tmp_path: Path) -> None:
    kaggle(tmp_path, "imgId,prompt\nb,x\n", "a.png", "a.jpg", "b.png")
    with pytest.raises(UsageError, match=r"imgId 'a' is there twice \(images/a.jpg and images/a.png\)"):
        open_source(tmp_path).list()


def test_a_row_that_leads_out_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "s.png").write_bytes(b"secret")
    folder = tmp_path / "set"
    kaggle(folder, "imgId,prompt\na,x\n", "a.png")
    (folder / "images" / "dir").symlink_to(tmp_path / "more")
    (folder / "prompts.csv").write_text("imgId,prompt\na,x\ndir/s,y\n")
    source = open_source(folder)
    with pytest.raises(UsageError, match=r"row 2: the id 'dir/s' leads through dir/, a link to a folder"):
        source.list()
    with pytest.raises(ImageError, match="leaves the source"):
        source.read("images/dir/s.png")


def test_order_and_rows_do_not_depend_on_the_file_system(tmp_path: Path) -> None:
    names = [f"{i:03d}" for i in range(50)]
    listings = []
    for seed in (1, 2):
        shuffled = random.Random(seed).sample(names, 50)
        folder = tmp_path / str(seed)
        kaggle(
            folder,
            "imgId,prompt\n" + "".join(f"{n},p{n}\n" for n in reversed(names[:20])),
            *(f"{n}.png" for n in shuffled),
        )
        listings.append(open_source(folder).list().table)
    assert listings[0].equals(listings[1])
    assert listings[0]["imgId"].to_pylist() == names[19::-1] + names[20:]


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1), min_size=1, max_size=8
    )
)
def test_what_the_csv_module_writes_is_read_back(prompts: list[str]) -> None:
    import csv
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.csv")
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerows([["imgId", "prompt"], *enumerate(prompts)])
        assert read_table(path)["prompt"].to_pylist() == prompts


def test_a_nul_does_not_reach_the_rows(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "prompts.jsonl").write_text('{"imgId": "a", "prompt": "x\\u0000y"}')
    assert rows(tmp_path)[0][2] == "xy"


def test_imagefolder(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "sub/b.jpg", "c.png")
    (tmp_path / "metadata.csv").write_text("file_name,text,label\nsub/b.jpg,two,1\na.png,one,2\n")
    source = open_source(tmp_path)
    assert source.settings == {"format": "imagefolder"}
    assert rows(tmp_path) == [("sub/b", "sub/b.jpg", "two"), ("a", "a.png", "one"), ("c", "c.png", None)]
    assert source.list().table["label"].to_pylist() == ["1", "2", ""]


def test_imagefolder_with_a_table_a_split(tmp_path: Path) -> None:
    put(tmp_path, "test/a.png", "train/a.png")
    for split, extra in (("train", "x"), ("test", "y")):
        line = {"file_name": "a.png", "prompt": split, extra: "1"}
        (tmp_path / split / "metadata.jsonl").write_text(json.dumps(line))
    table = open_source(tmp_path).list().table
    assert table["imgId"].to_pylist() == ["test/a", "train/a"]
    assert table["prompt"].to_pylist() == ["test", "train"]
    assert table.select(["x", "y"]).to_pydict() == {"x": ["", "1"], "y": ["1", ""]}


def test_imagefolder_needs_its_table_and_columns(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    with pytest.raises(UsageError, match=r"no metadata.csv"):
        rows(tmp_path, format="imagefolder")
    (tmp_path / "metadata.csv").write_text("file,prompt\na,x\n")
    with pytest.raises(UsageError, match="no column 'file_name'"):
        rows(tmp_path, format="imagefolder")
    (tmp_path / "metadata.csv").write_text("file_name,prompt\n../a.png,x\n")
    with pytest.raises(UsageError, match="outside the source"):
        rows(tmp_path)


def test_a_table_without_prompts_is_no_source_of_them(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,label\na.png,3\n")
    assert open_source(tmp_path).settings == {"format": "folder"}
    with pytest.raises(UsageError, match="holds no table with an id and a prompt column"):
        rows(tmp_path, format="table")


def test_a_missing_table_is_told(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    with pytest.raises(UsageError, match=r"there is no table .*no.csv"):
        rows(tmp_path, prompts=tmp_path / "no.csv")


def test_damaged_parquet_table(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "prompts.parquet").write_bytes(b"PAR1" + os.urandom(100) + b"PAR1")
    with pytest.raises(UsageError, match=r"prompts.parquet cannot be read"):
        rows(tmp_path, format="table")
