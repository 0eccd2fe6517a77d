"""Shards in a bucket, on a loopback S3."""

import pickle
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cli import main
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction.repair import repair
from img2prompt_cache.sources import open_source
from img2prompt_cache.sources.remote import root
from img2prompt_cache.sources.remote.transport import PATIENCE
from kit import Log, Tiny, parts_of
from loopback import Store, busy, cut, make_shard, meanwhile, serving


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMG2PROMPT_SPOOL", str(tmp_path / "spool"))
    for name, value in {
        "ACCESS_KEY_ID": "a-key",
        "SECRET_ACCESS_KEY": "a-secret",
        "DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setattr(PATIENCE, "first", 0.01)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    with serving(DomainDispatcherApplication(create_backend_app)) as served:
        yield served


@dataclass
class Bucket:
    store: Store
    client: Any
    shards: dict[str, bytes]

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket="pairs", Key=f"train/{name}", Body=data)


@pytest.fixture
def bucket(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
    client = boto3.client("s3")
    client.create_bucket(Bucket="pairs")
    shards = {f"{n:05d}.tar": make_shard(tmp_path / "images", 4 * n, 4) for n in range(3)}
    made = Bucket(store, client, shards)
    for name, data in shards.items():
        made.put(name, data)
    store.seen.clear()
    store.faults.clear()
    yield made
    for name in (item["Key"] for item in client.list_objects_v2(Bucket="pairs").get("Contents", [])):
        client.delete_object(Bucket="pairs", Key=name)
    client.delete_bucket(Bucket="pairs")
    client.close()


@pytest.fixture
def local(bucket: Bucket, tmp_path: Path) -> Path:
    folder = tmp_path / "local"
    folder.mkdir()
    for name, data in bucket.shards.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    "url",
    [
        "s3://pairs/train/",
        "s3://pairs",
        "s3://pairs/train/{00000..00002}.tar",
        "s3://pairs/train/*.tar",
        "s3://pairs/train/0000{0,1,2}.tar",
    ],
)
def test_folders_and_patterns_list_what_a_local_folder_does(bucket: Bucket, local: Path, url: str) -> None:
    source, here = open_source(url), open_source(local)
    table, expected = source.list().table, here.list().table
    if url == "s3://pairs":
        expected = open_source(local.parent, here.options).list().table
        assert [uri.partition("/")[2] for uri in table["uri"].to_pylist()] == [
            uri.partition("/")[2] for uri in expected["uri"].to_pylist()
        ]
        return
    assert table.equals(expected)
    assert source.settings == here.settings
    assert [source.read(uri) for uri in table["uri"].to_pylist()] == [
        here.read(uri) for uri in expected["uri"].to_pylist()
    ]


def test_a_pass_with_faults_gives_the_parts_of_a_local_one(
    bucket: Bucket, local: Path, tiny: Tiny, tmp_path: Path
) -> None:
    tiny.extract(local, tmp_path / "here")
    bucket.store.faults = [busy(), cut(5000), busy("429 Too Many Requests"), cut(0), cut(100)]
    tiny.extract("s3://pairs/train", tmp_path / "there")
    assert not bucket.store.faults
    assert parts_of(tmp_path / "there") == parts_of(tmp_path / "here")
    text = (tmp_path / "there" / "cache.json").read_text()
    assert '"root": "s3://pairs/train"' in text
    assert "a-secret" not in text
    assert "a-key" not in text
    assert tiny.extract("s3://pairs/train", tmp_path / "there").rows == 12


def one_shard_at_a_time(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> int:
    """Leave room for the copy of one shard; give that room in bytes."""
    room = int(1.5 * max(map(len, bucket.shards.values())))
    monkeypatch.setenv("IMG2PROMPT_SPOOL_GB", str(room / 1e9))
    monkeypatch.setattr(root, "_FEW", 0)
    return room


def test_copies_stay_within_their_room(
    bucket: Bucket, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = one_shard_at_a_time(bucket, monkeypatch)
    source = open_source("s3://pairs/train")
    uris = source.list().table["uri"].to_pylist()
    here = open_source(local)
    for uri in (*uris, *reversed(uris)):
        assert source.read(uri) == here.read(uri)
        held = [path.stat().st_size for path in (tmp_path / "spool").glob("*/*.tar")]
        assert len(held) == 1
        assert sum(held) <= room
    monkeypatch.setenv("IMG2PROMPT_SPOOL_GB", "0.000001")
    with pytest.raises(Img2PromptError, match=r"00002.tar takes .* GB, and copies .* IMG2PROMPT_SPOOL_GB"):
        source.read(uris[-1])
    monkeypatch.setenv("IMG2PROMPT_SPOOL_GB", "much")
    with pytest.raises(UsageError, match="must be a number of GB, not 'much'"):
        source.read(uris[-1])


def test_the_next_shard_is_fetched_ahead_and_none_twice(bucket: Bucket, tmp_path: Path) -> None:
    source = open_source("s3://pairs/train")
    uris = source.root.names(".tar")
    source.root.locate(uris[0])
    source.root._open()[1]._ahead.join()
    assert len(list((tmp_path / "spool").glob("*/*.tar"))) == 2
    again = pickle.loads(pickle.dumps(source))
    listing = again.list()
    assert [again.read(uri)[:4] for uri in listing.table["uri"].to_pylist()] == [b"\x89PNG"] * 12
    assert [bucket.store.gets(name) for name in bucket.shards] == [1, 1, 1]


def test_a_file_that_was_listed_is_not_copied_to_be_listed_again(bucket: Bucket, tmp_path: Path) -> None:
    first = open_source("s3://pairs/train").list()
    for copy in (tmp_path / "spool").glob("*/*.tar"):
        copy.unlink()
    bucket.store.seen.clear()
    again = open_source("s3://pairs/train").list()
    assert again.table.equals(first.table)
    assert again.summary == first.summary
    assert [bucket.store.gets(name) for name in bucket.shards] == [0, 0, 0]
    bucket.put("00001.tar", bucket.shards["00001.tar"][:5000])
    changed = open_source("s3://pairs/train").list()
    assert any("damaged shard" in note for note in changed.summary.notes)
    assert [bucket.store.gets(name) for name in bucket.shards][:2] == [0, 1]
    for kept in (tmp_path / "spool" / "listings").iterdir():
        kept.write_bytes(kept.read_bytes()[:-20])
    assert open_source("s3://pairs/train").list().table.equals(changed.table)


def test_a_single_image_is_read_without_a_copy_of_its_shard(bucket: Bucket, tmp_path: Path) -> None:
    source = open_source("s3://pairs/train")
    uris = source.list().table["uri"].to_pylist()
    images = [source.read(uri) for uri in uris]
    for copy in (tmp_path / "spool").glob("*/*.tar"):
        copy.unlink()
    bucket.store.seen.clear()
    source = pickle.loads(pickle.dumps(source))
    assert [source.read(uris[at]) for at in (1, 6, 11)] == [images[at] for at in (1, 6, 11)]
    assert not list((tmp_path / "spool").glob("*/*.tar"))
    assert [bucket.store.gets(name) for name in bucket.shards] == [1, 1, 1]
    assert [source.read(uris[0]) for _ in range(9)] == [images[0]] * 9
    assert list((tmp_path / "spool").glob("*/00000.tar"))
    changing = open_source("s3://pairs/train")
    changing.root.names(".tar")
    bucket.put("00002.tar", bucket.shards["00001.tar"])
    with pytest.raises(Img2PromptError, match=r"00002.tar has changed since it was listed"):
        changing.read(uris[10])


def test_a_shard_that_changes_in_the_middle_of_a_pass(
    bucket: Bucket, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_shard_at_a_time(bucket, monkeypatch)
    new = bytearray(bucket.shards["00002.tar"])
    at = new.index(b"\x89PNG")
    other = make_shard(tmp_path / "other", 30, 1)
    image = other[other.index(b"\x89PNG") :]
    new[at : at + 100] = image[:100]
    log = Log()

    def plan(plan: Any) -> None:
        bucket.put("00002.tar", bytes(new))

    log.plan = plan  # type: ignore[method-assign]
    with pytest.raises(Img2PromptError, match=r"s3://pairs/train/00002.tar has changed since it was listed"):
        tiny.extract("s3://pairs/train", tmp_path / "cache", log)
    assert Cache(tmp_path / "cache").rows == 8
    assert tiny.extract("s3://pairs/train", tmp_path / "cache").rows == 12
    assert Cache(tmp_path / "cache").text("status")["status"][8] == "failed"
    bucket.put("00002.tar", bucket.shards["00002.tar"])
    log = Log()
    tiny.extract("s3://pairs/train", tmp_path / "cache", log)
    assert any("1 image has changed" in note and "update" in note for note in log.notes)
    tiny.extract("s3://pairs/train", tmp_path / "cache", update=True)
    assert set(Cache(tmp_path / "cache").text("status")["status"]) == {"ok"}


def test_an_object_that_changes_while_it_is_copied(bucket: Bucket, tmp_path: Path) -> None:
    source = open_source("s3://pairs/train/00000.tar")
    bucket.store.faults = [meanwhile(lambda: bucket.put("00000.tar", bucket.shards["00001.tar"]))]
    with pytest.raises(Img2PromptError, match="has changed since it was listed"):
        source.list()
    assert not list((tmp_path / "spool").glob("*/*"))
    assert source.list().table["imgId"].to_pylist() == ["004", "005", "006", "007"]


def test_a_pass_that_gives_up_goes_on_where_it_stopped(
    bucket: Bucket, local: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_shard_at_a_time(bucket, monkeypatch)
    tiny.extract(local, tmp_path / "here")
    log = Log()

    def plan(plan: Any) -> None:
        bucket.client.get_object(Bucket="pairs", Key="train/00000.tar")["Body"].read()
        bucket.store.faults = [*([meanwhile(lambda: None)] * 2), *([busy()] * 7)]

    log.plan = plan  # type: ignore[method-assign]
    with pytest.raises(Img2PromptError, match=r"00002.tar could not be read in 7 attempts: .*go on where"):
        tiny.extract("s3://pairs/train", tmp_path / "there", log)
    bucket.store.faults.clear()
    assert 0 < Cache(tmp_path / "there").rows < 12
    tiny.extract("s3://pairs/train", tmp_path / "there")
    assert parts_of(tmp_path / "there") == parts_of(tmp_path / "here")


def test_damaged_parts_are_computed_again_from_the_store(bucket: Bucket, tiny: Tiny, tmp_path: Path) -> None:
    tiny.extract("s3://pairs/train", tmp_path / "cache")
    before = parts_of(tmp_path / "cache")
    for name in before:
        (tmp_path / "cache" / name).write_bytes(b"damaged")
    assert repair(tmp_path / "cache").left == ()
    assert parts_of(tmp_path / "cache") == before


def test_several_sources_a_new_column_and_retries(
    bucket: Bucket, local: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(bucket.shards["00001.tar"])
    at = data.index(b"\x89PNG")
    data[at : at + 4] = b"oops"
    bucket.put("00001.tar", bytes(data))
    cache = tmp_path / "cache"
    common = ["--cache", str(cache), "--device", "cpu", "--precision", "fp32"]
    models = ["--backbone", tiny.cnn, "--encoder", tiny.encoder]
    both = [f"ours={local}", "bucket=s3://pairs/train/{00000..00001}.tar"]
    assert main.run(["extract", *both, *models, *common]) == 0
    assert Cache(cache).text("source")["source"] == ["ours"] * 12 + ["bucket"] * 8
    assert Cache(cache).text("imgId")["imgId"][12] == "bucket/00000/000"
    assert Cache(cache).text("status")["status"].count("failed") == 1
    bucket.put("00001.tar", bucket.shards["00001.tar"])
    assert main.run(["extract", *common, "--retry-failed"]) == 0
    assert Cache(cache).text("status")["status"].count("failed") == 0
    assert main.run(["extract", *common, "--backbone", tiny.vit]) == 0
    assert main.run(["verify", "--cache", str(cache)]) == 0
    assert main.run(["extract", both[1], *common, "--dry-run"]) == 0
    seen = capsys.readouterr()
    assert "s3://pairs/train/{00000..00001}.tar: read as webdataset (00000.tar is a .tar file)" in seen.out
    assert "a-secret" not in seen.out + seen.err


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://pairs/nothing", "there is no s3://pairs/nothing"),
        ("s3://absent/train", "there is no s3://absent/train"),
        ("s3://pairs/train/00009.tar", "there is no s3://pairs/train/00009.tar"),
        ("s3://pairs/train/{00001..00009}.tar", "there is no s3://pairs/train/00003.tar"),
        ("s3://pairs/{a,b}*/x.tar", "in the name only"),
        ("s3://pairs/images", "Copy a folder of images to this machine"),
    ],
)
def test_what_is_not_there(bucket: Bucket, url: str, told: str) -> None:
    bucket.client.put_object(Bucket="pairs", Key="images/a.png", Body=b"png")
    with pytest.raises(UsageError, match=re.escape(told)):
        open_source(url).list()


def test_a_store_that_refuses(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PATIENCE, "attempts", 3)
    source = open_source("s3://pairs/train/00000.tar")
    bucket.store.faults = [busy("403 Forbidden")]
    with pytest.raises(Img2PromptError, match=r"may not be read: .*Credentials come from the environment"):
        source.list()


def test_a_public_bucket_needs_no_credentials(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket.client.put_object_acl(Bucket="pairs", Key="train/00000.tar", ACL="public-read")
    signed: list[bool] = []

    def fault(app: Any, environ: Any, start_response: Any) -> None:
        signed.append("HTTP_AUTHORIZATION" in environ)

    bucket.store.faults = [fault]
    assert len(open_source("s3://pairs/train/00000.tar").list().table) == 4
    assert signed == [False]
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(Img2PromptError, match=r"may not be read: .*nobody.* Credentials come from"):
        open_source("s3://pairs/train/00000.tar").list()


def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.chdir(tmp_path)
    assert main.run(["extract", "s3://pairs/train"]) == 2
    assert "pip install 'img2prompt-cache[remote]'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert main.run(["extract", "gs://pairs/train"]) == 2
    assert "pip install gcsfs" in capsys.readouterr().err
