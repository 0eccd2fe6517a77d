"""Tables of prompts: reading them, choosing columns, matching rows with images."""

import json
import os
import random
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.errors import ImageError, UsageError
from img2prompt_cache.sources import jsonfile, list_source, open_source
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
        "1 other table skipped for prompts.csv (first: also.csv)",
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("imgId,prompt\na,x\n,y\n", "row 2: the id '' has no id"),
        ("imgId,prompt\n../a,x\n", "row 1: the id '../a' names a file outside"),
        ("imgId,prompt\na,x\nsub/../../a,x\n", "row 2.*outside"),
        ("imgId,prompt\n/etc/passwd,x\n", "no row of .* names an image"),
        ("imgId,prompt\nC:\\b.png,x\n", "no row of .* names an image"),
        ("imgId,prompt\n..\\a.png,x\n", "outside"),
        ("imgId,prompt\n", "has no rows"),
        ("", "cannot be read as a table"),
        (
            "imgId,words\na,x\n",
            "no column named prompt or text or caption; its columns are imgId, words.*`prompt_column`",
        ),
        ("a.png,x\nb.png,y\n", r"begins with a row of values \(a.png, x\); its first row must name"),
        ("nr,prompt\na,x\n", "no column named imgId.*`id_column`"),
        ("imgId,prompt,prompt\na,x,y\n", "2 columns 'prompt'"),
        ("imgId,prompt\na,x,y\n", "prompts.csv cannot be read.*quote every prompt"),
        ("imgId,prompt\nq,x\n", "no row of .* names an image.*'q'.*'images/a.png'"),
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


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_header_tells_the_separator(tmp_path: Path, separator: str, ending: str) -> None:
    text = ending.join(("\ufeffimgId,prompt,n", 'a,"x; y, z | w",1', 'b,"two', 'lines",2', "")).replace(
        ",", separator
    )
    kaggle(tmp_path, text, "a.png", "b.png")
    wanted = "x; y, z | w".replace(",", separator)
    assert [row[2] for row in rows(tmp_path)] == [wanted, f"two{ending}lines"]
    assert open_source(tmp_path).list().table["n"].to_pylist() == ["1", "2"]


def test_commas_inside_a_table_of_semicolons_need_no_quotes(tmp_path: Path) -> None:
    kaggle(tmp_path, "imgId;prompt\na;x, y, z\nb;w\n", "a.png", "b.png")
    assert [row[2] for row in rows(tmp_path)] == ["x, y, z", "w"]


def test_a_spreadsheet_may_state_the_separator(tmp_path: Path) -> None:
    kaggle(tmp_path, "sep=;\r\nimgId;prompt\r\na;x, y\r\n", "a.png")
    assert [row[2] for row in rows(tmp_path)] == ["x, y"]


def test_a_ragged_table_is_told_with_its_own_separator(tmp_path: Path) -> None:
    kaggle(tmp_path, "imgId;prompt\na;x; y\n", "a.png")
    with pytest.raises(UsageError, match="separated by a semicolon: quote every prompt that holds one"):
        rows(tmp_path)


@pytest.mark.parametrize(
    ("written", "prompt"),
    [
        (r'"the \"old\" tram, x"', 'the "old" tram, x'),
        (r'"\"tram\""', '"tram"'),
        (r'"the \"old\" tram, \\ x"', r'the "old" tram, \ x'),
        (r'"the \"old\" tram \(1900\)"', r'the "old" tram \(1900\)'),
        (r'"a tram \\"', r"a tram \\"),
        (r'"a tram \""" x"', 'a tram "" x'),
        (r'"a tram, 5"" wide\"', r'a tram, 5" wide\ '.rstrip()),
    ],
)
def test_quotes_behind_backslashes(tmp_path: Path, written: str, prompt: str) -> None:
    kaggle(tmp_path, f"imgId,prompt\na,{written}\nb,plain\n", "a.png", "b.png")
    assert [row[2] for row in rows(tmp_path)] == [prompt, "plain"]


DOCUMENTS = [
    '[{"imgId": "a", "prompt": "one"}, {"imgId": "b", "prompt": "two"}]',
    '{"a.png": "one", "b.png": "two"}',
    '{"a.png": {"prompt": "one", "seed": 3}, "b.png": {"prompt": "two"}}',
    '{"images/a": {"caption": "one", "tags": "x"}, "images/b": {"caption": "two", "tags": "y"}}',
    '{"a.png": {"p": "one", "se": 3, "c": 12.0}, "b.png": {"p": "two", "se": 3, "c": 12.0}}',
    '{"version": 1, "rows": [{"image": "a.png", "text": "one"}, {"image": "b.png", "text": "two"}]}',
    '[{"file": "a.png", "meta": {"prompt": "one"}}, {"file": "b.png", "meta": {"prompt": "two"}}]',
    '[{"file": "a.png", "caption": ["one", "1"]}, {"file": "b.png", "caption": ["two"]}]',
]


@pytest.mark.parametrize("name", ["prompts.json", "captions.json"])
@pytest.mark.parametrize("document", DOCUMENTS)
def test_one_document_for_many_images(tmp_path: Path, document: str, name: str) -> None:
    put(tmp_path, "images/a.png", "images/b.png")
    (tmp_path / name).write_text(document)
    source = open_source(tmp_path)
    assert source.settings == {"format": "table"}
    assert source.list().table["prompt"].to_pylist() == ["one", "two"]


@pytest.mark.parametrize(
    "document", ["{}", "[]", "[1]", '{"prompt": "x", "seed": 3}', '{"prompt": {"text": "x"}}', "[[[", "3"]
)
def test_a_document_that_is_no_table(tmp_path: Path, document: str) -> None:
    put(tmp_path, "images/a.png")
    (tmp_path / "other.json").write_text(document)
    assert open_source(tmp_path).settings == {"format": "folder"}
    (tmp_path / "prompts.json").write_text(document)
    with pytest.raises(UsageError, match=r"prompts.json is (no table of prompts|not JSON)"):
        rows(tmp_path)


def test_a_document_beside_its_image_is_no_table(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    for name in "ab":
        record = {"prompt": name, "images": [{"image": "a.png", "prompt": "other"}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    assert open_source(tmp_path).settings == {"format": "sidecar"}
    assert [row[2] for row in rows(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    "document", ['{"a": "one", "b": "two"}', '{"a": {"text": "one"}, "b": {"text": "two"}}']
)
def test_keys_need_no_suffix_where_the_name_says_prompts(tmp_path: Path, document: str) -> None:
    put(tmp_path, "images/a.png", "images/b.png")
    (tmp_path / "other.json").write_text(document)
    assert open_source(tmp_path).settings == {"format": "folder"}
    (tmp_path / "other.json").rename(tmp_path / "my_captions.json")
    assert [row[2] for row in rows(tmp_path)] == ["one", "two"]


def test_a_document_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "images/a.png")
    monkeypatch.setattr(jsonfile, "MAX_DOCUMENT_BYTES", 10)
    (tmp_path / "prompts.json").write_text(DOCUMENTS[0])
    with pytest.raises(UsageError, match="more than the 10 allowed; write it as JSON Lines"):
        rows(tmp_path)


def test_columns_of_a_table_are_bounded(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png")
    lines = "\n".join(json.dumps({"imgId": "a", "prompt": "x", f"c{i}": 1}) for i in range(1001))
    (tmp_path / "prompts.jsonl").write_text(lines)
    with pytest.raises(UsageError, match="more than the 1000 columns"):
        rows(tmp_path)


def table(folder: Path, *ids: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.csv").write_text(
        "image_path,prompt\n" + "".join(f"{name},p{i}\n" for i, name in enumerate(ids))
    )
    return folder


@pytest.mark.parametrize(
    "ids",
    [
        ("a", "b"),
        ("x/a.png", "x/b.png"),
        ("x\\a.png", "x\\b.png"),
        (".\\x\\a.png", "x\\b.png"),
        ("train/x/a", "train/x/b"),
        ("/kaggle/input/set/train/x/a.png", "/kaggle/input/set/train/x/b.png"),
        ("D:\\set\\train\\x\\a.png", "D:\\set\\train\\x\\b.png"),
        ("https://example.org/train/x/a.png", "https://example.org/train/x/b.png"),
    ],
)
def test_paths_are_matched_by_their_ends(tmp_path: Path, ids: tuple[str, str]) -> None:
    put(table(tmp_path, *ids), "train/x/a.png", "train/x/b.png", "train/x/c.png")
    assert rows(tmp_path) == [
        ("train/x/a", "train/x/a.png", "p0"),
        ("train/x/b", "train/x/b.png", "p1"),
        ("train/x/c", "train/x/c.png", None),
    ]


def test_how_paths_were_matched_is_told(tmp_path: Path) -> None:
    put(table(tmp_path, "a", "gone"), "train/a.png")
    listing = open_source(tmp_path).list()
    assert listing.summary.notes == ("ids are matched by the ends of their paths: 'a' is 'train/a'",)
    assert listing.summary.without_image == 1


def test_paths_from_the_folder_that_holds_the_images(tmp_path: Path) -> None:
    put(table(tmp_path, "pics/a.png", "pics/b.png"), "pics/a.png", "pics/b.png")
    assert rows(tmp_path / "pics", prompts=tmp_path / "train.csv") == [
        ("a", "a.png", "p0"),
        ("b", "b.png", "p1"),
    ]


def test_images_may_lie_elsewhere_than_in_images(tmp_path: Path) -> None:
    put(table(tmp_path, "train/a.png"), "train/a.png", "images/logo.png")
    assert rows(tmp_path) == [("train/a", "train/a.png", "p0"), ("images/logo", "images/logo.png", None)]


def test_a_table_in_a_folder_of_its_own(tmp_path: Path) -> None:
    put(table(tmp_path / "meta", "a"), "x")
    put(tmp_path, "pictures/a.png")
    assert rows(tmp_path) == [("pictures/a", "pictures/a.png", "p0")]
    table(tmp_path / "more", "a")
    source, listing = list_source(open_source(tmp_path))
    assert source.settings == {"format": "folder"}
    assert "meta/, more/ lie in folders without images" in listing.summary.notes[0]


def test_each_folder_with_its_own_table(tmp_path: Path) -> None:
    put(tmp_path, "set/a/0.png", "set/a/1.png", "set/b/images/0.png", "set/c/0.png", "loose.png")
    (tmp_path / "set/a/prompts.csv").write_text("imgId,prompt,style\n1,one,ink\n0,zero,oil\n9,gone,oil\n")
    (tmp_path / "set/b/captions.csv").write_text("image,caption\n0.png,two\n")
    put(tmp_path, "meta/x.txt")
    (tmp_path / "meta" / "t.csv").write_text("imgId,prompt\n0,other\n")
    assert rows(tmp_path) == [
        ("set/a/1", "set/a/1.png", "one"),
        ("set/a/0", "set/a/0.png", "zero"),
        ("set/b/0", "set/b/images/0.png", "two"),
        ("loose", "loose.png", None),
        ("set/c/0", "set/c/0.png", None),
    ]
    listing = open_source(tmp_path).list()
    assert listing.table["style"].to_pylist() == ["ink", "oil", "", "", ""]
    assert (listing.summary.pairs, listing.summary.without_prompt, listing.summary.without_image) == (3, 2, 1)
    assert listing.summary.notes == (
        "2 folders have tables of prompts, each of which is read with the images of its folder "
        "(first: set/a/)",
        "1 folder with a table of prompts, but without images, left out (first: meta/)",
        "2 images in no such folder (first: loose.png)",
    )
    (tmp_path / "set/b/captions.csv").write_text("image,caption\n7.png,two\n")
    with pytest.raises(UsageError, match=r"no row of .*captions\.csv names an image of .*set/b"):
        open_source(tmp_path).list()


def test_one_table_deep_below_is_read_with_its_folder(tmp_path: Path) -> None:
    put(tmp_path, "data/train/0.png", "data/val/0.png")
    (tmp_path / "data/train/prompts.csv").write_text("imgId,prompt\n0,one\n")
    assert rows(tmp_path) == [
        ("data/train/0", "data/train/0.png", "one"),
        ("data/val/0", "data/val/0.png", None),
    ]


def test_a_table_that_is_not_read_beside_another_is_told(tmp_path: Path) -> None:
    put(tmp_path, "0.png", "more/1.png", "other/2.png")
    (tmp_path / "prompts.csv").write_text("imgId,prompt\n0,zero\n")
    (tmp_path / "more/prompts.csv").write_text("imgId,prompt\n1,one\n")
    notes = open_source(tmp_path).list().summary.notes
    assert any("table of its own, which is not read beside prompts.csv" in note for note in notes)
    (tmp_path / "prompts.csv").write_text("imgId,prompt\n0,zero\nmore/1,one\n")
    assert open_source(tmp_path).list().summary.notes == ()


@pytest.mark.parametrize(
    ("ids", "images", "message"),
    [
        (("0", "1"), ("train/0.png", "test/0.png"), "the id '0' may be test/0 or train/0"),
        (("train/0", "test/0"), ("0.png",), "the ids 'train/0' and 'test/0' may both be 0"),
        (("0", "x/0"), ("y/x/0.png",), "may both be y/x/0"),
        (("train/0.png",), ("test/0.png",), "no row of .* names an image"),
        (("/in/train/0.png",), ("test/0.png",), "no row of .* names an image"),
        (("a",), ("x/ba.png",), "no row of .* names an image"),
    ],
)
def test_two_readings_are_refused(
    tmp_path: Path, ids: tuple[str, ...], images: tuple[str, ...], message: str
) -> None:
    put(table(tmp_path, *ids), *images)
    with pytest.raises(UsageError, match=message):
        rows(tmp_path)


def test_a_path_that_leads_out_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    put(table(tmp_path / "set", str(tmp_path / "secret.png"), "/x/a.png"), "a.png")
    assert rows(tmp_path / "set") == [("a", "a.png", "p1")]


def test_matching_many_deep_paths_takes_no_time(tmp_path: Path) -> None:
    deep = "/".join("d" * 100)
    put(tmp_path, *(f"{deep}/{i}.png" for i in range(20)))
    table(tmp_path, *("a/" * 100_000 + f"{i}" for i in range(20)), "19")
    began = time.process_time()
    assert len([row for row in rows(tmp_path) if row[2]]) == 1
    assert time.process_time() - began < 5


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


def test_imagefolder_with_nested_tables(tmp_path: Path) -> None:
    put(tmp_path, "data/train/0.png", "data/val/x/0.png", "data/val/x/1.png")
    for folder, names in (("data/train", ["0.png"]), ("data/val", ["x/0.png", "x/1.png"])):
        lines = "\n".join(json.dumps({"file_name": name, "Caption": f"{folder} {name}"}) for name in names)
        (tmp_path / folder / "metadata.jsonl").write_text(lines)
    put(tmp_path, "data/val/x/metadata.csv")  # below another table: not one of its own
    source = open_source(tmp_path)
    assert source.settings == {"format": "imagefolder"}
    assert rows(tmp_path) == [
        ("data/train/0", "data/train/0.png", "data/train 0.png"),
        ("data/val/x/0", "data/val/x/0.png", "data/val x/0.png"),
        ("data/val/x/1", "data/val/x/1.png", "data/val x/1.png"),
    ]


def diffusiondb(folder: Path, part: str, **prompts: str) -> None:
    put(folder, *(f"{part}/{name}.png" for name in prompts))
    document = {f"{name}.png": {"p": text, "se": 1, "c": 7.0, "st": 50} for name, text in prompts.items()}
    (folder / part / f"{part}.json").write_text(json.dumps(document))


def test_diffusiondb_in_parts(tmp_path: Path) -> None:
    diffusiondb(tmp_path, "part-000001", a="one", b="two")
    diffusiondb(tmp_path, "part-000002", c="three")
    names = [("part-000001/a", "one"), ("part-000001/b", "two"), ("part-000002/c", "three")]
    assert [(name, prompt) for name, _, prompt in rows(tmp_path)] == names
    (tmp_path / "images").mkdir()
    for part in ("part-000001", "part-000002"):
        (tmp_path / part).rename(tmp_path / "images" / part)
    assert [(name, prompt) for name, _, prompt in rows(tmp_path)] == [(f"images/{n}", p) for n, p in names]
    assert rows(tmp_path / "images" / "part-000002") == [("c", "c.png", "three")]


def test_diffusiondb_with_its_table(tmp_path: Path) -> None:
    put(tmp_path, "images/part-000001/a.png", "images/part-000002/b.png")
    columns = {
        "image_name": ["b.png", "gone.png", "a.png"],
        "prompt": ["two", "x", "one"],
        "part_id": [2, 3, 1],
    }
    pq.write_table(pa.table(columns), tmp_path / "metadata.parquet")
    assert rows(tmp_path) == [
        ("part-000002/b", "images/part-000002/b.png", "two"),
        ("part-000001/a", "images/part-000001/a.png", "one"),
    ]
    assert open_source(tmp_path).list().summary.without_image == 1


def test_journeydb(tmp_path: Path) -> None:
    put(tmp_path, "000/a.jpg", "001/b.jpg")
    lines = [
        {"prompt": f"{name} --v 5", "img_path": f"./{folder}/{name}.jpg", "Task2": {"Caption": "other"}}
        for folder, name in (("001", "b"), ("000", "a"))
    ]
    (tmp_path / "train_anno.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert rows(tmp_path) == [("001/b", "001/b.jpg", "b --v 5"), ("000/a", "000/a.jpg", "a --v 5")]


def test_lists_and_records_in_a_parquet_table(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    for prompts in ([["one", "1"], ["two"]], [{"prompt": "one"}, {"prompt": "two"}], ['["one"]', "two"]):
        pq.write_table(pa.table({"imgId": ["a", "b"], "caption": prompts}), tmp_path / "prompts.parquet")
        assert [row[2] for row in rows(tmp_path)] == ["one", "two"]


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
