"""URLs: which are sources, and what of them may be stored."""

import re
from pathlib import Path

import pytest

from img2prompt_cache.cli import main
from img2prompt_cache.errors import UsageError
from img2prompt_cache.prediction.inputs import given_paths
from img2prompt_cache.sources import open_source
from img2prompt_cache.sources.named import find_recorded, name_of, split_name
from img2prompt_cache.sources.remote import RemoteRoot, is_url
from img2prompt_cache.sources.remote.address import expand_braces, parse_url, scrub, secret_of
from kit import make_source
from loopback import make_shard


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://a/b.tar", "ftp:// is not supported; supported are s3://"),
        ("https://me:word@host/b.tar", "may not hold a user name or password"),
        ("s3://key:secret@bucket/b.tar", "may not hold a user name or password"),
        ("s3://bucket/b.tar?X=hush", "may hold no query"),
        ("s3://bucket/../b.tar", "may not hold . or .."),
        ("https://host/%2e%2e/b.tar", "may not hold . or .."),
        ("https://host/b.tar#hush", "is not a URL of an object"),
        ("s3://", "is not a URL of an object"),
        ("https://host/a b.tar", "is not a URL of an object"),
        ("https://[::1/b.tar", "not a URL that can be read"),
    ],
)
def test_what_is_no_source(url: str, told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)) as caught:
        parse_url(url)
    assert not re.search("hush|word@|secret", str(caught.value).replace("password", ""))


def test_a_query_is_taken_off_and_remembered() -> None:
    root = RemoteRoot("HTTPS://host/a/x.tar?sig=hush")
    assert str(root) == "https://host/a/x.tar"
    assert secret_of("https://host/a/x.tar") == "sig=hush"
    assert "hush" not in repr(root) + repr(root.__getstate__())


def test_braces() -> None:
    assert expand_braces("a-{08..11}{,x}.tar")[::2] == [f"a-{n}.tar" for n in ("08", "09", "10", "11")]
    assert expand_braces("{train,test}/x") == ["train/x", "test/x"]
    for wrong in ("{5..1}", "{0..999999}", "{0..999}{0..999}"):
        with pytest.raises(UsageError):
            expand_braces(f"s3://b/{wrong}.tar")


def test_names_of_sources() -> None:
    assert name_of(RemoteRoot("s3://bucket/train/shard-{00..11}.tar")) == "train"
    assert name_of(RemoteRoot("s3://bucket/val.tar")) == "val"
    assert name_of(RemoteRoot("hf://datasets/me/set")) == "set"
    assert split_name("mine=s3://bucket/a=b") == ("mine", "s3://bucket/a=b")
    assert split_name("https://host/x.tar?a=b") == ("", "https://host/x.tar?a=b")
    entries = ({"root": "s3://bucket/train", "name": "train"},)
    assert find_recorded(entries, RemoteRoot("s3://bucket/train")) == 0
    assert find_recorded(entries, RemoteRoot("s3://other/train")) is None


def test_texts_of_others_lose_queries_and_users() -> None:
    said = "no https://me:pw@host/x?X-Amz-Signature=hush 'http://h/y?k=hush'\nand more"
    assert scrub(said) == "no https://host/x 'http://h/y'"


def test_a_path_cannot_hold_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_url("images")
    with pytest.raises(UsageError, match=r"cannot be a URL .s3://bucket/x.; give it as a str"):
        open_source(Path("s3://bucket/x"))


def test_a_file_url_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_source(tmp_path / "my images", 2)
    source = open_source(f"file://{str(folder).replace(' ', '%20')}")
    assert source.root == folder
    assert len(source.list().table) == 2
    monkeypatch.setenv("IMG2PROMPT_SPOOL", str(tmp_path / "spool"))
    for number in range(3):
        (tmp_path / f"s-{number}.tar").write_bytes(make_shard(tmp_path / "x", 2 * number, 2))
    listed = open_source(f"file://{tmp_path}/s-{{1..2}}.tar").list().table
    assert listed["imgId"].to_pylist() == ["s-1/002", "s-1/003", "s-2/004", "s-2/005"]
    assert len(open_source(f"file://{tmp_path}/s-*.tar").list().table) == 6


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["extract", "images", "--cache", "s3://bucket/cache"],
            "--cache cannot be a URL (s3://bucket/cache)",
        ),
        (["fit", "--cache", "https://host/cache?sig=hush"], "--cache cannot be a URL (https://host/cache)"),
        (["predict", "a.png", "--run", "run", "--out", "gs://b/x.csv"], "--out cannot be a URL"),
        (["report", "--out", "s3://bucket/report.html"], "--out cannot be a URL"),
        (["extract", "ftp://host/x.tar"], "ftp:// is not supported"),
    ],
)
def test_urls_where_they_mean_nothing(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make_source(tmp_path / "images", 1)
    assert main.run(arguments) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "hush" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_predictions_are_for_images_on_this_machine() -> None:
    with pytest.raises(
        UsageError, match=r"cannot be a URL .s3://bucket/x.tar.; cache its images with `extract"
    ):
        given_paths(["a.png", "s3://bucket/x.tar"])
