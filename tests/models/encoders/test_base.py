from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.encoders.base import Encoder, load_encoder
from img2prompt_cache.models.encoders.prompts import clean
from kit import save_encoder

PROMPTS = [
    "two red boats at night",
    "A calm sea, 4k!",
    "two red boats at night",
    "",
    "pixel art " * 40,
    "boat",
]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> Encoder:
    return load_encoder(f"st:local-dir:{tiny}")


def library_encode(folder: Path | str, prompts: list[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return model.encode(prompts, normalize_embeddings=True, show_progress_bar=False)


def test_embeddings_are_the_librarys_own(tiny: Path, encoder: Encoder) -> None:
    vectors = encoder.encode(PROMPTS, batch_tokens=64)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(PROMPTS), 16) == (len(PROMPTS), encoder.dim)
    np.testing.assert_allclose(vectors, library_encode(tiny, PROMPTS), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(rows=st.permutations([*range(6), 0, 2, 4]))
def test_order_and_repetition_change_no_bit(rows: list[int], encoder: Encoder) -> None:
    np.testing.assert_array_equal(
        encoder.encode([PROMPTS[row] for row in rows], batch_tokens=64),
        encoder.encode(PROMPTS, batch_tokens=64)[rows],
    )


def test_each_distinct_prompt_is_encoded_once(tiny: Path) -> None:
    encoder = load_encoder(f"st:local-dir:{tiny}", clean="seed")
    seen = 0

    def count(_: Any, inputs: tuple[dict[str, torch.Tensor], ...]) -> None:
        nonlocal seen
        seen += len(inputs[0]["input_ids"])

    handle = encoder.model.model[0].register_forward_pre_hook(count)
    vectors = encoder.encode(["A boat!", "a boat", "a  BOAT", "sea"] * 50, batch_tokens=24)
    handle.remove()
    assert seen == 2
    assert len(np.unique(vectors, axis=0)) == 2


def test_no_prompts_give_no_rows(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, 16)


def test_cleaning_comes_before_encoding_and_is_part_of_the_fingerprint(tiny: Path, encoder: Encoder) -> None:
    prompt = "Two RED (boats:1.2) --ar 16:9"
    for rule in ("light", "seed"):
        cleaning = load_encoder(f"st:local-dir:{tiny}", clean=rule)
        np.testing.assert_array_equal(cleaning.encode([prompt]), encoder.encode([clean(prompt, rule)]))
        assert cleaning.fingerprint == {**encoder.fingerprint, "clean": rule}
    with pytest.raises(UsageError, match="unknown `clean` rule"):
        load_encoder(f"st:local-dir:{tiny}", clean="lite")


def test_the_fingerprint_tells_models_apart_and_copies_not(
    tiny: Path, encoder: Encoder, tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "copy")
    assert load_encoder(f"st:local-dir:{tmp_path / 'copy'}").fingerprint == encoder.fingerprint
    # What is normalised in any case is the same with and without a module for it.
    plain = load_encoder(f"st:local-dir:{save_encoder(tmp_path / 'plain', normalize=False)}")
    assert plain.fingerprint == encoder.fingerprint
    np.testing.assert_allclose(plain.encode(PROMPTS), encoder.encode(PROMPTS), atol=1e-6)

    def differs(folder: Path) -> set[str]:
        other = load_encoder(f"st:local-dir:{folder}").fingerprint
        assert other.keys() == encoder.fingerprint.keys()
        return {name for name in other if other[name] != encoder.fingerprint[name]}

    assert differs(save_encoder(tmp_path / "seeded", seed=1)) == {"weights"}
    assert differs(save_encoder(tmp_path / "heads", heads=4)) == {"architecture"}

    def edited(name: str, file: str, old: str, new: str) -> Path:
        folder = shutil.copytree(tiny, tmp_path / name)
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))
        return folder

    assert differs(
        edited("cased", "tokenizer_config.json", '"do_lower_case": true', '"do_lower_case": false')
    ) == {"tokenizer"}
    assert differs(edited("cls", "1_Pooling/config.json", '"mean"', '"cls"')) == {"pooling"}


def test_a_pooler_that_the_file_lacks_does_not_unsettle_the_fingerprint(
    tiny: Path, encoder: Encoder, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny, tmp_path / "headless")
    state = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in state.items() if not name.startswith("pooler.")}
    assert len(kept) < len(state)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    assert load_encoder(f"st:local-dir:{folder}").fingerprint == encoder.fingerprint


def test_weights_in_half_precision_are_computed_with_in_float32(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny, tmp_path / "half")
    state = load_file(folder / "model.safetensors")
    save_file({k: v.half() for k, v in state.items()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16", "torch_dtype": "float16"}))
    vectors = load_encoder(f"st:local-dir:{folder}").encode(PROMPTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_damaged_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny, tmp_path / "damaged")
    state = load_file(folder / "model.safetensors")
    state["embeddings.LayerNorm.bias"][3] = torch.nan
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Img2PromptError, match="not finite"):
        load_encoder(f"st:local-dir:{folder}").encode(["sea"])
    (folder / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(Img2PromptError, match="cannot be loaded"):
        load_encoder(f"st:local-dir:{folder}")


def test_classes_of_other_libraries_are_not_imported(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "code")
    trace = tmp_path / "it-ran"
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "evil.py").write_text(f"open({str(trace)!r}, 'w')\nclass Evil: ...\n")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    modules = json.loads((folder / "modules.json").read_text())
    for kind in ("evil.Evil", None, ["sentence_transformers."]):
        modules[-1]["type"] = kind
        (folder / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(Img2PromptError, match=r"cannot be loaded .* classes of other libraries"):
            load_encoder(f"st:local-dir:{folder}")
    assert not trace.exists()


def test_neither_code_nor_pickles_of_a_model_folder_run(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "code")
    trace = tmp_path / "it-ran"
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w')\nclass Evil: ...\n")
    modules = json.loads((folder / "modules.json").read_text())
    modules[-1]["type"] = "evil.Evil"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(Img2PromptError, match="cannot be loaded"):
        load_encoder(f"st:local-dir:{folder}")
    assert not trace.exists()

    folder = shutil.copytree(tiny, tmp_path / "pickle")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(Img2PromptError, match="no safetensors weights"):
        load_encoder(f"st:local-dir:{folder}")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("st:local-dir:nowhere", "no folder nowhere"),
        ("st:./models/mine", "st:local-dir:PATH"),
        ("st:a/b/c", "st:local-dir:PATH"),
        ("st:../x", "st:local-dir:PATH"),
        ("st:local-dir:", "st:local-dir:PATH"),
        ("packaged:all-MiniLM-L6", "did you mean all-MiniLM-L6-v2"),
        ("packaged:efficientnet-lite0", "unknown packaged encoder"),
        ("timm:resnet50", "unknown encoder family"),
        ("all-MiniLM-L6-v2", "is not a spec"),
    ],
)
def test_specs_that_name_nothing_are_told_how_to_be_written(spec: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load_encoder(spec)


def test_loading_and_encoding_are_silent_and_leave_the_libraries_as_they_were(
    tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("sentence_transformers")
    logger.setLevel(logging.INFO)
    before = (transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled(), logger.level)
    try:
        load_encoder(f"st:local-dir:{tiny}").encode(PROMPTS)
        after = (transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled(), logger.level)
    finally:
        logger.setLevel(logging.NOTSET)
    assert after == before
    assert capfd.readouterr() == ("", "")


class Hub(ThreadingHTTPServer):
    """A loopback stand-in for the model hub with one repository, ``sentence-transformers/tiny``."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = unquote(urlparse(self.path).path)
                hub.asked.append(path)
                files = {
                    file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()
                }
                api, resolve = (
                    "/api/models/sentence-transformers/tiny/tree/",
                    "/sentence-transformers/tiny/resolve/",
                )
                name = path.removeprefix(resolve).partition("/")[2]
                if path.startswith(api):
                    tree = [
                        {"type": "file", "path": name, "size": file.stat().st_size, "oid": f"{i:040x}"}
                        for i, (name, file) in enumerate(sorted(files.items()))
                    ]
                    self._answer(200, json.dumps(tree).encode(), "tree")
                elif path.startswith(resolve) and name in files:
                    self._answer(200, files[name].read_bytes(), name)
                else:
                    code = "EntryNotFound" if path.startswith(resolve) else "RepoNotFound"
                    self._answer(404, b"", "none", {"X-Error-Code": code})

            def _answer(
                self, status: int, body: bytes, tag: str, headers: dict[str, str] | None = None
            ) -> None:
                self.send_response(status)
                given = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Content-Length": str(len(body))}
                for header, value in {**given, **(headers or {})}.items():
                    self.send_header(header, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


def point_hub_at(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT and HF_HUB_CACHE do, which are read when huggingface_hub is imported."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))


@pytest.fixture
def stand_in(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = shutil.copytree(tiny, tmp_path / "repository")
    (folder / "evil.py").write_text("")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with Hub(folder) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        point_hub_at(hub.url, tmp_path / "hub-cache", monkeypatch)
        yield hub
        hub.shutdown()


def test_a_model_of_the_hub_is_pinned_and_then_needs_no_hub(
    stand_in: Hub, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_encoder("st:tiny@main")
    assert first.revision == COMMIT
    assert first.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(first.encode(PROMPTS), encoder.encode(PROMPTS))
    assert not [path for path in stand_in.asked if path.endswith((".py", ".bin"))]
    stand_in.asked.clear()

    again = load_encoder("st:sentence-transformers/tiny", revision=COMMIT)
    assert stand_in.asked == []
    assert (again.fingerprint, again.revision) == (first.fingerprint, COMMIT)

    point_hub_at("http://127.0.0.1:1", tmp_path / "hub-cache", monkeypatch)
    assert load_encoder("st:tiny", revision=COMMIT).fingerprint == first.fingerprint


@pytest.mark.slow
def test_a_hub_that_breaks_off_half_way_is_named(
    stand_in: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub.snapshot_download(
        "sentence-transformers/tiny", revision=COMMIT, allow_patterns=["modules.json"]
    )
    point_hub_at("http://127.0.0.1:1", tmp_path / "hub-cache", monkeypatch)
    with pytest.raises(Img2PromptError, match='`preset="packaged"`'):
        load_encoder("st:tiny", revision=COMMIT)


def test_what_the_hub_does_not_have_is_a_wrong_name(stand_in: Hub) -> None:
    with pytest.raises(UsageError, match="no repository sentence-transformers/tiniest"):
        load_encoder("st:tiniest")


def test_an_unreachable_hub_is_answered_with_the_packaged_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_hub_at("http://127.0.0.1:1", tmp_path, monkeypatch)
    with pytest.raises(Img2PromptError, match=r'st:all-MiniLM-L6-v2: .*`preset="packaged"`'):
        load_encoder("st:all-MiniLM-L6-v2")


@pytest.mark.weights
def test_the_packaged_encoder_is_the_published_model() -> None:
    from img2prompt_cache.models.weights.packaged import packaged_path

    encoder = load_encoder("packaged:all-MiniLM-L6-v2")
    prompts = ["two red boats on a calm sea at night, pixel art", "A white colored sandwich.", "boat " * 400]
    vectors = encoder.encode(prompts)
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(vectors, library_encode(packaged_path("all-MiniLM-L6-v2"), prompts), atol=1e-6)
    same = load_encoder(f"st:local-dir:{packaged_path('all-MiniLM-L6-v2')}")
    assert same.fingerprint == encoder.fingerprint
    near, far = encoder.encode(["a pair of crimson ships on the ocean, 8-bit", "tax return form"])
    assert vectors[0] @ near > 0.5 > vectors[0] @ far + 0.3
