from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.encoders.base import Encoder, load_encoder
from img2prompt_cache.numerics import hubs
from img2prompt_cache.prediction import bank as bank_module
from img2prompt_cache.prediction import bank_file, kept
from img2prompt_cache.prediction.bank import Bank
from img2prompt_cache.progress import Event

PROMPTS = ["two red boats", "a calm sea", 'say "x", y', "pixel art", "船 at night"]


def unit(n: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real sentence-transformers model of word vectors, small and with seeded random weights."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = sorted({word for prompt in PROMPTS for word in prompt.replace('"', "").replace(",", "").split()})
    tokenizer = Tokenizer(
        WordLevel({"[UNK]": 0, **{w: i for i, w in enumerate(words, 1)}}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = Whitespace()
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "static"
    static = StaticEmbedding(tokenizer, embedding_weights=torch.randn(len(words) + 1, 8))
    SentenceTransformer(modules=[static], device="cpu").save(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def encoder(model_folder: Path) -> Encoder:
    return load_encoder(f"st:local-dir:{model_folder}")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@settings(max_examples=50, deadline=None)
@given(m=st.integers(1, 40), n=st.integers(0, 6), k=st.integers(1, 50), seed=st.integers(0, 99))
def test_search_is_brute_force(m: int, n: int, k: int, seed: int) -> None:
    vectors, queries = unit(m, seed=seed), unit(n, seed=seed + 1)
    indices, cosines = Bank([str(i) for i in range(m)], vectors).search(queries, k)
    assert (indices.shape, indices.dtype) == ((n, min(k, m)), np.int64)
    assert (cosines.shape, cosines.dtype) == ((n, min(k, m)), np.float32)
    every = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    np.testing.assert_allclose(cosines, -np.sort(-every, axis=1)[:, :k], atol=1e-6)
    np.testing.assert_allclose(cosines, np.take_along_axis(every, indices, axis=1), atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(m=st.integers(1, 40), n=st.integers(0, 6), k=st.integers(1, 50), seed=st.integers(0, 99))
def test_prompts_are_ranked_with_a_correction_for_hubs_and_shown_with_their_cosine(
    m: int, n: int, k: int, seed: int
) -> None:
    vectors, queries, known = unit(m, seed=seed), unit(n, seed=seed + 1), unit(9, seed=seed + 2) + 0.3
    bank = Bank([str(i) for i in range(m)], vectors)
    prompts, cosines = bank.nearest(queries, k, known.mean(axis=0))
    assert cosines.dtype == np.float32
    every = (queries @ vectors.T).astype(np.float64)
    corrected = every - hubs.ALPHA * (vectors @ known.T).mean(axis=1)
    rows = np.array(prompts, dtype=np.int64).reshape(n, min(k, m))
    np.testing.assert_allclose(np.take_along_axis(corrected, rows, 1), -np.sort(-corrected)[:, :k], atol=1e-6)
    np.testing.assert_allclose(cosines, np.take_along_axis(every, rows, axis=1), atol=1e-6)


def test_a_hub_gives_way_to_a_prompt_that_is_near_to_this_image() -> None:
    hub, own = np.eye(4, dtype=np.float32)[:2]
    query = np.array([[0.8, 0.6, 0, 0]], np.float32)
    bank = Bank(["hub", "own"], np.stack([hub, own]))
    assert bank.nearest(query, 1)[0] == [["hub"]]
    prompts, cosines = bank.nearest(query, 2, hub)
    assert prompts == [["own", "hub"]]
    np.testing.assert_allclose(cosines, [[0.6, 0.8]], atol=1e-6)


def test_cosines_of_many_prompts_of_many_queries_are_computed_in_parts() -> None:
    known, queries = unit(300, 128), unit(3_001, 128, 1)
    bank = Bank.from_pairs([f"prompt {row}" for row in range(300)], known)
    tracemalloc.start()
    try:
        prompts, cosines = bank.nearest(queries, 100, queries.mean(axis=0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 120e6 < queries.nbytes * 100
    rows = np.array([[int(text.split()[1]) for text in row] for row in prompts])
    np.testing.assert_allclose(cosines, np.take_along_axis(queries @ known.T, rows, axis=1), atol=1e-5)


def test_pairs_make_a_bank_of_distinct_prompts() -> None:
    vectors = unit(6)
    vectors[3] = np.nan
    bank = Bank.from_pairs(["a", "b", "a", None, " ", "c"], vectors)
    assert bank.prompts == ["a", "b", "c"]
    np.testing.assert_array_equal(bank.vectors, vectors[[0, 1, 5]])
    assert [bank.prompts[i] for i in bank.search(vectors[[5, 0]], 1)[0][:, 0]] == ["c", "a"]


def write_table(path: Path, column: str = "prompt") -> Path:
    rows = [{"id": str(i), column: prompt} for i, prompt in enumerate([*PROMPTS, PROMPTS[0], " "])]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".txt":
        path.write_text("\ufeff" + "\r\n".join(row[column] for row in rows), encoding="utf-8", newline="")
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        quoted = [[row["id"], '"' + row[column].replace('"', '""') + '"'] for row in rows]
        path.write_text(
            "".join(separator.join(row) + "\n" for row in [["id", column], *quoted]), encoding="utf-8"
        )
    return path


@pytest.mark.parametrize("name", ["x.txt", "x.csv", "x.tsv", "x.jsonl", "x.parquet"])
@pytest.mark.parametrize("column", ["prompt", "Caption"])
def test_any_text_file_is_a_bank(name: str, column: str, encoder: Encoder, tmp_path: Path) -> None:
    bank = Bank.from_file(write_table(tmp_path / name, column), encoder)
    assert bank.prompts == PROMPTS
    np.testing.assert_array_equal(bank.vectors, encoder.encode(PROMPTS))
    assert bank.search(encoder.encode(["a calm sea"]), 1)[0].tolist() == [[1]]


def test_a_file_larger_than_a_chunk_is_encoded_whole(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "CHUNK", 2)
    told: list[Event] = []
    bank = Bank.from_file(write_table(tmp_path / "x.csv"), encoder, told.append)
    np.testing.assert_allclose(bank.vectors, encoder.encode(PROMPTS), atol=1e-6)
    assert told[0] == Event("step", "encode prompts", 0, len(PROMPTS))
    assert len(told) > 2
    assert told[-1] == Event("step", "encode prompts", len(PROMPTS), len(PROMPTS))
    told.clear()
    Bank.from_file(tmp_path / "x.csv", encoder, told.append)
    assert told == []  # the kept copy takes no time


def calls(encoder: Encoder) -> list[int]:
    counted: list[int] = []
    encoder.model.model[0].register_forward_pre_hook(lambda *_: counted.append(1))
    return counted


def test_a_file_is_encoded_once_for_each_encoder(model_folder: Path, home: Path, tmp_path: Path) -> None:
    encoder = load_encoder(f"st:local-dir:{model_folder}")
    counted = calls(encoder)
    first = Bank.from_file(write_table(tmp_path / "x.csv"), encoder)
    encoded = len(counted)
    assert encoded > 0
    again = Bank.from_file(write_table(tmp_path / "renamed.csv"), encoder)
    assert len(counted) == encoded
    assert again.prompts == first.prompts
    np.testing.assert_array_equal(again.vectors, first.vectors)
    np.testing.assert_array_equal(again.search(first.vectors, 5), first.search(first.vectors, 5))

    other = load_encoder(f"st:local-dir:{model_folder}", clean="seed")
    cleaned = Bank.from_file(tmp_path / "x.csv", other)
    np.testing.assert_array_equal(cleaned.vectors, other.encode(PROMPTS))
    assert len(list((home / "banks").iterdir())) == 2

    (tmp_path / "x.csv").write_text("prompt\na calm sea\n")
    assert Bank.from_file(tmp_path / "x.csv", encoder).prompts == ["a calm sea"]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"\x80\x04pickle", "short", "shape"])
def test_a_damaged_copy_is_made_anew(
    damage: bytes | str, encoder: Encoder, home: Path, tmp_path: Path
) -> None:
    path = write_table(tmp_path / "x.csv")
    whole = np.array(Bank.from_file(path, encoder).vectors)
    (kept,) = (home / "banks").iterdir()
    if damage == "shape":
        np.save(kept, unit(2))
    else:
        kept.write_bytes(kept.read_bytes()[:-9] if damage == "short" else damage)
    np.testing.assert_array_equal(Bank.from_file(path, encoder).vectors, whole)
    np.testing.assert_array_equal(np.load(kept), whole)


def test_a_home_that_cannot_be_written_is_no_hindrance(
    encoder: Encoder, home: Path, tmp_path: Path, many: Path
) -> None:
    home.write_text("a file where the folder should be")
    assert Bank.from_file(write_table(tmp_path / "x.csv"), encoder).prompts == PROMPTS
    assert Bank.from_file(many, encoder).index is not None


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of more prompts than are searched exactly: mixtures of the words, 255 of them."""
    monkeypatch.setattr(bank_module, "EXACT", 200)
    words = ["two", "red", "boats", "a", "calm", "sea", "pixel", "art"]
    mixtures = [" ".join(w for i, w in enumerate(words) if number >> i & 1) for number in range(1, 256)]
    path = tmp_path / "many.txt"
    path.write_text("\n".join(mixtures))
    return path


def test_a_large_bank_finds_what_an_exact_search_does(many: Path, encoder: Encoder) -> None:
    bank = Bank.from_file(many, encoder)
    assert bank.index is not None
    exact = Bank(bank.prompts, bank.vectors)
    queries = np.concatenate([bank.vectors[::9], unit(100, seed=4)])
    indices, cosines = bank.search(queries, 10)
    _, wanted = exact.search(queries, 10)
    assert (indices.dtype, cosines.dtype) == (np.int64, np.float32)
    np.testing.assert_allclose(cosines, (queries[:, None] * bank.vectors[indices]).sum(axis=2), atol=2e-3)
    assert (cosines >= wanted[:, -1:] - 2e-3).mean() >= 0.99
    assert bank.search(queries, 999)[0].shape == (len(queries), 255)
    with pytest.raises(Img2PromptError, match="8 values, the predictions 5"):
        bank.search(unit(1, dim=5), 1)


def test_cells_are_fitted_once_and_kept_beside_the_embeddings(
    many: Path, encoder: Encoder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    first = Bank.from_file(many, encoder, told.append)
    assert list(dict.fromkeys(event.task for event in told)) == ["encode prompts", "index prompts"]
    told.clear()
    assert sorted(path.suffix for path in (home / "banks").iterdir()) == [".npy", ".safetensors"]
    again = Bank.from_file(many, encoder, told.append)
    assert not told
    np.testing.assert_array_equal(again.search(unit(30), 5), first.search(unit(30), 5))


@pytest.mark.parametrize("damage", ["empty", "pickle", "other"])
def test_damaged_cells_are_fitted_anew(damage: str, many: Path, encoder: Encoder, home: Path) -> None:
    first = Bank.from_file(many, encoder)
    (kept,) = (home / "banks").glob("*.safetensors")
    whole = kept.read_bytes()
    if damage == "other":
        fewer = many.with_name("fewer.txt")
        fewer.write_text("\n".join(many.read_text().split("\n")[:220]))
        Bank.from_file(fewer, encoder)
        (other,) = {*(home / "banks").glob("*.safetensors")} - {kept}
        kept.write_bytes(other.read_bytes())
    else:
        kept.write_bytes(b"" if damage == "empty" else b"\x80\x04pickle")
    again = Bank.from_file(many, encoder)
    np.testing.assert_array_equal(again.search(unit(30), 5), first.search(unit(30), 5))
    assert kept.read_bytes() == whole


@pytest.mark.parametrize("name", ["x.txt.gz", "X.GZ", "x.caption.gz"])
def test_a_list_of_prompts_may_be_compressed(name: str, encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress("\r\n".join(["\ufeff" + PROMPTS[0], *PROMPTS[1:]]).encode()))
    assert Bank.from_file(tmp_path / name, encoder).prompts == PROMPTS


def test_compressed_files_that_are_no_bank_are_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(bank_file, "MOST_BYTES", 1 << 20)
    whole = gzip.compress(b"a prompt\n" * 100)
    for data, words in (
        (b"a prompt", "cannot be read as UTF-8 text, compressed with gzip: Not a gzipped file"),
        (whole[:-20], "cannot be read as UTF-8 text, compressed with gzip: "),
        (whole[:15] + b"\xff" + whole[16:], "cannot be read as UTF-8 text, compressed with gzip: "),
        (gzip.compress(b"caf\xe9"), "cannot be read as UTF-8 text, compressed with gzip: "),
        (gzip.compress(b"a prompt\n" * 200_000), "unpacks to more than 1 MiB; unpack it yourself"),
        (gzip.compress(b" \n"), "holds no prompt"),
    ):
        (tmp_path / "x.txt.gz").write_bytes(data)
        with pytest.raises(UsageError, match=words) as caught:
            bank_file.read_bank(tmp_path / "x.txt.gz", "bank")
        assert caught.value.parameter == "bank"
    (tmp_path / "x.csv.gz").write_bytes(whole)
    with pytest.raises(UsageError, match="only lists of prompts are read; unpack the table"):
        bank_file.read_bank(tmp_path / "x.csv.gz", "bank")


def test_files_that_are_no_bank_are_named(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    with pytest.raises(UsageError, match="no such file"):
        Bank.from_file(path, encoder)
    with pytest.raises(UsageError, match="no such file"):
        Bank.from_file(tmp_path, encoder)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="no column prompt or text or caption; its columns are a, b"):
        Bank.from_file(path, encoder)
    path.write_text('prompt\n" "\n')
    with pytest.raises(UsageError, match="holds no prompt"):
        Bank.from_file(path, encoder)
    (tmp_path / "x.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UsageError, match="UTF-8"):
        Bank.from_file(tmp_path / "x.txt", encoder)


def test_queries_that_do_not_fit_are_refused() -> None:
    bank = Bank(["a", "b"], unit(2))
    with pytest.raises(Img2PromptError, match="8 values, the predictions 5"):
        bank.search(unit(1, dim=5), 1)
    with pytest.raises(Img2PromptError, match="not finite"):
        bank.search(np.full((1, 8), np.nan, np.float32), 1)
