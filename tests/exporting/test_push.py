"""`push` and `hf://`: what leaves the house, and what comes in from there, against a hub on the loopback."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import img2prompt_cache as ipc
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.exporting import Pushed
from img2prompt_cache.exporting.anonymous import shared_record
from img2prompt_cache.exporting.export import fingerprint_of
from img2prompt_cache.exporting.golden import DRAWN
from img2prompt_cache.models.onnx_file import write_graph
from img2prompt_cache.runs.run import load_run
from kit import Log
from model_hub import READER, TOKEN, Fault, ModelHub
from synthetic import SETTINGS, edit_run

# The library of the Hub uses a form of a request that its client has a new name for.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME, ADDRESS = "me/head", "hf://me/head"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library of the Hub does not wait between its attempts."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    class Clock:
        """The module `time`, but for waiting."""

        def __getattr__(self, name: str) -> object:
            return (lambda seconds: None) if name == "sleep" else getattr(time, name)

    monkeypatch.setattr(_http, "time", Clock())
    monkeypatch.setattr(file_download, "time", Clock())


def rows(run: Path) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, sum(load_run(run).widths))).astype(np.float32)


def test_a_run_comes_back_the_same_and_is_pinned(hub: ModelHub, run: Path, log: Log) -> None:
    pushed = ipc.push(run, NAME, license="mit")
    assert hub.repositories[NAME].branches["main"] == pushed.commit
    assert hub.repositories[NAME].messages == [f"A run of img2prompt-cache {version()}"]
    assert {file.name: file.bytes for file in pushed.files} == {
        name: len(data) for name, data in hub.repositories[NAME].files.items()
    }
    back = ipc.predict(ADDRESS, rows(run), progress=log)
    here = ipc.predict(run, rows(run))
    assert back.vectors.tobytes() == here.vectors.tobytes()
    assert back.expected.tobytes() == here.expected.tobytes()
    assert f"run {ADDRESS}@{pushed.commit}" in log.notes
    again = load_run(ADDRESS)
    assert again.path == f"{ADDRESS}@{pushed.commit}"
    assert again.mean_prediction.tobytes() == load_run(run).mean_prediction.tobytes()
    assert (again.name, again.home, list(again.history)) == ("head", None, [])


def version() -> str:
    from importlib.metadata import version as installed

    return installed("img2prompt-cache")


def test_nothing_private_leaves(hub: ModelHub, run: Path) -> None:
    pushed = ipc.push(run, NAME)
    files = hub.repositories[NAME].files
    assert {*files} == {
        *("README.md", "bundle.json", "run/run.json", "run/head.safetensors", "run/expected.safetensors"),
        "run/held_out.safetensors",
    }
    ids = [line.partition(",")[0] for line in (run / "validation.csv").read_text().splitlines()[1:]]
    private = [str(run.parent.parent), str(Path.home()), run.name, "prompt 1 of", *ids, TOKEN]
    whole = b"".join(files.values())
    assert [text for text in private if text.encode() in whole] == []
    record = json.loads(files["run/run.json"])
    assert (record["cache"], record["request"], record["series"]) == ("", {}, "")
    assert "expected cosines" in held(pushed)["run/expected.safetensors"]


def held(pushed: Pushed) -> dict[str, str]:
    return {file.name: file.holds for file in pushed.files}


def test_what_a_head_takes_along_is_listed(run: Path) -> None:
    ridge, knn = (ipc.push(run.parent / name, NAME, dry_run=True) for name in (run.name, "knn-one+other-01"))
    assert held(ridge)["run/head.safetensors"] == "the fitted head"
    count = load_run(run).rows
    assert held(knn)["run/head.safetensors"] == (
        f"the fitted head, with prompt embeddings of {count} pairs and image features of {count} pairs"
    )


def test_the_card_says_how_to_use_it(hub: ModelHub, run: Path) -> None:
    ipc.push(run, NAME, license="mit")
    card = hub.repositories[NAME].files["README.md"].decode()
    assert "img2prompt-cache predict --run hf://me/head IMAGES --bank starter\n" in card
    assert "license: mit\n" in card
    assert ipc.card(ADDRESS, license="mit") == card
    ipc.push(run, NAME, with_prompts=True, overwrite=True)
    assert ipc.card(ADDRESS).encode() == hub.repositories[NAME].files["README.md"]


def test_prompts_go_along_where_they_are_asked_for(hub: ModelHub, run: Path) -> None:
    pushed = ipc.push(run, NAME, with_prompts=True)
    (texts,) = [file for file in pushed.files if file.name == "bank/prompts.json"]
    assert texts.holds.endswith(" prompts as text")
    assert "--bank" not in hub.repositories[NAME].files["README.md"].decode().partition("\n```\n")[0]
    back = ipc.predict(ADDRESS, rows(run), top_k=3)
    here = ipc.predict(run, rows(run), top_k=3)
    assert back.prompts == here.prompts
    np.testing.assert_array_equal(back.scores, here.scores)
    ipc.push(run, NAME, overwrite=True)
    assert not [name for name in hub.repositories[NAME].files if name.startswith("bank/")]


def test_the_graph_and_its_golden_set_go_along(hub: ModelHub, run: Path, tmp_path: Path) -> None:
    graph, golden = write_onnx(tmp_path / "mine.onnx", run), tmp_path / "mine.golden.npz"
    np.savez(golden, pixels=np.zeros(3, np.uint8), origin=np.array(DRAWN))
    ipc.push(run, NAME, onnx=graph)
    files = hub.repositories[NAME].files
    assert (files["run.onnx"], files["run.golden.npz"]) == (graph.read_bytes(), golden.read_bytes())
    assert "`run.onnx` is the same model in fp32" in files["README.md"].decode()
    assert "`run.golden.npz` holds" in files["README.md"].decode()
    hub.asked.clear()
    load_run(ADDRESS)
    assert not [line for line in hub.asked if "onnx" in line or "golden" in line or "README" in line]


def test_an_owner_whose_name_is_that_of_a_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for home in ("/data", "/head"):
        monkeypatch.setattr(Path, "home", lambda home=home: Path(home))
        ipc.push(run, "data/head", dry_run=True)
    with pytest.raises(UsageError, match=r"README\.md is not shared: it holds /head"):
        ipc.push(run, "data/head", license="see /head/licence", dry_run=True)


@pytest.mark.parametrize("origin", ["images of the cache", None])
def test_images_of_the_cache_stay_here(run: Path, tmp_path: Path, log: Log, origin: str | None) -> None:
    graph = write_onnx(tmp_path / "mine.onnx", run)
    said = {} if origin is None else {"origin": np.array(origin)}
    np.savez(tmp_path / "mine.golden.npz", pixels=np.zeros(3, np.uint8), **said)
    assert "run.golden.npz" not in held(ipc.push(run, NAME, onnx=graph, dry_run=True, progress=log))
    assert (
        "mine.golden.npz holds images of the cache, so it stays here without `with_images=True`" in log.notes
    )
    assert "run.golden.npz" in held(ipc.push(run, NAME, onnx=graph, with_images=True, dry_run=True))


def test_what_is_no_exported_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*absent\.onnx"):
        ipc.push(run, NAME, onnx=tmp_path / "absent.onnx", dry_run=True)
    (tmp_path / "mine.onnx").write_bytes(b"a graph")
    with pytest.raises(Img2PromptError, match=r"mine\.onnx cannot be used: it is cut short, or no ONNX file"):
        ipc.push(run, NAME, onnx=tmp_path / "mine.onnx", dry_run=True)
    write_onnx(tmp_path / "mine.onnx", run.parent / "mean-one+other-01")
    with pytest.raises(UsageError, match=r"was not exported from run ridge-one\+other-01 as it is now"):
        ipc.push(run, NAME, onnx=tmp_path / "mine.onnx", dry_run=True)
    write_onnx(tmp_path / "mine.onnx", run, made=f"in {run.parent.parent}")
    with pytest.raises(UsageError, match=r"run\.onnx is not shared: it holds .*, a path of this machine"):
        ipc.push(run, NAME, onnx=tmp_path / "mine.onnx", dry_run=True)


def write_onnx(path: Path, run: Path, **metadata: str) -> Path:
    """Write a graph that says that it was exported from a run; it hands on its input."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "run", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made_of = fingerprint_of(load_run(run), precision="fp32")
    write_graph(model, path, kind="run", fingerprint=made_of, metadata={"precision": "fp32", **metadata})
    return path


def test_a_dry_run_lists_files_and_asks_nobody(
    hub: ModelHub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    listed = ipc.push(run, NAME, dry_run=True)
    assert (listed.commit, hub.asked) == ("", [])
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert ipc.push(run, NAME).files == listed.files


def test_the_token_comes_from_the_environment_alone(
    hub: ModelHub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, get_token

    stored = tmp_path / "token"
    stored.write_text("hf_stored")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(stored))
    monkeypatch.delenv("HF_TOKEN")
    assert get_token() == "hf_stored"
    with pytest.raises(UsageError, match="HF_TOKEN is not set"):
        ipc.push(run, NAME)
    assert hub.asked == []
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    ipc.push(run, NAME)
    monkeypatch.delenv("HF_TOKEN")
    load_run(ADDRESS)
    assert {*hub.tokens} == {TOKEN, ""}
    monkeypatch.setenv("HF_TOKEN", "hf_secret with a space")
    with pytest.raises(UsageError, match="holds no token") as caught:
        ipc.push(run, NAME)
    assert "secret" not in str(caught.value)


def test_a_token_that_is_not_accepted_reads_nothing(
    hub: ModelHub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ipc.push(run, NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(Img2PromptError, match="does not let the token in HF_TOKEN read me/head"):
        load_run(ADDRESS)


@pytest.mark.parametrize("head", SETTINGS)
def test_every_head_comes_back_the_same(hub: ModelHub, fitted: Path, head: str) -> None:
    (run,) = (fitted / "runs").glob(f"{head}-*")
    ipc.push(run, NAME)
    back, here = (ipc.predict(each, rows(run)) for each in (ADDRESS, run))
    assert back.vectors.tobytes() == here.vectors.tobytes()
    assert run.name.encode() not in b"".join(hub.repositories[NAME].files.values())


def test_paths_in_a_record_are_left_out_or_refused(run: Path, tmp_path: Path) -> None:
    secret = str(tmp_path / "secret")
    edit_run(run, measured={"extra": {"caches": [secret], "rows": 3, "left_out": 0}})
    edit_run(run, request={"only": secret}, series="my@2026")
    one, other = "timm:local-dir:/a/vit#levels", "timm:local-dir:/b/vit"
    edit_run(run, features__0__spec=one, features__1__spec=other, features__1__current="timm:local-dir:/c/x")
    record = shared_record(load_run(run))
    assert record.measured == {"extra": {"caches": [], "rows": 3, "left_out": 0}}
    assert [use.spec for use in record.features] == ["timm:local-dir:vit#levels", "timm:local-dir:vit-2"]
    assert record.features[1].current == "timm:local-dir:x"
    assert secret not in str(record)
    for path in (secret, "~/secret", "C:\\secret", "timm:local-dir:~/secret"):
        edit_run(run, measured={"new": [{"path": path}]})
        if "local-dir" in path:
            assert shared_record(load_run(run)).measured == {"new": [{"path": "timm:local-dir:secret"}]}
            continue
        with pytest.raises(UsageError, match=r"cannot be shared: .* in its record is a path"):
            shared_record(load_run(run))


def test_no_run_is_named_in_settings(run: Path) -> None:
    distil = {"head": "distil", "settings": {"teacher": "secret-run"}, "run": "secret-student"}
    edit_run(run, settings={"teacher": "secret-run", "members": [distil, distil]})
    assert "secret" not in str(shared_record(load_run(run)).settings)


@pytest.mark.parametrize(
    ("token", "repository", "said"),
    [
        ("hf_wrong", NAME, "does not accept the token in HF_TOKEN"),
        (READER, NAME, "the token in HF_TOKEN may not write to me/head"),
        (TOKEN, "you/head", "the token in HF_TOKEN may not write to you/head"),
    ],
)
def test_who_may_not_write_is_told(
    hub: ModelHub, run: Path, monkeypatch: pytest.MonkeyPatch, token: str, repository: str, said: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(Img2PromptError, match=said) as caught:
        ipc.push(run, repository)
    assert "\n" not in str(caught.value)
    assert token not in str(caught.value)


def test_a_repository_with_something_else_is_left_alone(hub: ModelHub, run: Path) -> None:
    ipc.push(run, NAME)
    with pytest.raises(UsageError, match="me/head holds a run; `overwrite=True` puts"):
        ipc.push(run, NAME)
    there = hub.repositories[NAME]
    first = there.branches["main"]
    second = ipc.push(run, NAME, license="mit", overwrite=True)
    assert [first, second.commit] == [*there.commits][1:]
    there.commit({**there.files, "weights.bin": b"x"})
    with pytest.raises(UsageError, match=r"holds weights\.bin, which is no part of a run"):
        ipc.push(run, NAME, overwrite=True)
    there.commit({"README.md": b"# mine"})
    with pytest.raises(UsageError, match=r"holds README\.md; `overwrite=True` puts"):
        ipc.push(run, NAME)
    there.commit({".gitignore": b"run/run.json"})
    with pytest.raises(Img2PromptError, match=r"has no run/run\.json after the commit; is it named in its"):
        ipc.push(run, NAME, overwrite=True)
    there.commit({"run.onnx": b"of another program"})
    with pytest.raises(UsageError, match=r"holds run\.onnx, which is no part of a run"):
        ipc.push(run, NAME, overwrite=True)


def test_private_repositories(hub: ModelHub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ipc.push(run, NAME, private=True)
    assert hub.repositories[NAME].private
    load_run(ADDRESS)
    ipc.push(run, "me/open")
    with pytest.raises(UsageError, match="is there and public"):
        ipc.push(run, "me/open", private=True, overwrite=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UsageError, match="or it is private and HF_TOKEN holds no token"):
        load_run(ADDRESS)


def test_a_branch(hub: ModelHub, run: Path) -> None:
    ipc.push(run, NAME, revision="try")
    assert [*hub.repositories[NAME].files] == []
    assert load_run(f"{ADDRESS}@try").name == "head"
    with pytest.raises(UsageError, match="holds no run"):
        load_run(ADDRESS)
    with pytest.raises(UsageError, match="has no revision 'other'"):
        load_run(f"{ADDRESS}@other")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST .*/preupload/", 503),
        Fault("POST .*/preupload/", 429, headers={"Retry-After": "0"}),
        Fault("POST .*/objects/batch", 500, 2),
        Fault("PUT /lfs/", 500, 2),
        Fault("PUT /lfs/", cut=0),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_what_passes_is_tried_again(hub: ModelHub, run: Path, fault: Fault) -> None:
    hub.faults = [fault]
    ipc.push(run, NAME)
    assert fault.times == 0
    assert load_run(ADDRESS).name == "head"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("POST .*/preupload/", 503, 99), "did not take the files for me/head; push again"),
        (Fault("POST .*/preupload/", 429, 99), "takes no more requests for now"),
        (Fault("PUT /lfs/", 403, 99), "may not write to me/head"),
        (Fault("POST .*/commit/", 500, 1), "did not take the files"),
        (Fault("POST .*/commit/", 412, 1), "was changed by somebody else"),
        (Fault("POST .*/commit/", cut=3), "did not answer, or went away"),
        (Fault("POST /api/repos/create", 409, 1), "was made or changed by somebody else"),
        (Fault("GET /api/models", 502, 1), "did not take the files"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_what_does_not_pass_is_told_in_a_line(hub: ModelHub, run: Path, fault: Fault, said: str) -> None:
    hub.faults = [fault]
    with pytest.raises(Img2PromptError, match=said) as caught:
        ipc.push(run, NAME)
    text = str(caught.value)
    assert "\n" not in text
    assert TOKEN not in text
    assert "secret" not in text


def test_a_hub_that_is_gone_and_what_is_cached(
    hub: ModelHub, run: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = ipc.push(run, NAME).commit
    here = ipc.predict(ADDRESS, rows(run))
    hub.asked.clear()
    load_run(f"{ADDRESS}@{commit}")
    assert hub.asked == []
    hub.faults = [Fault(".", 503, 99)]
    there = ipc.predict(ADDRESS, rows(run), progress=log)
    assert there.vectors.tobytes() == here.vectors.tobytes()
    assert any("did not answer; me/head is as its local cache has it" in line for line in log.notes)
    assert f"run {ADDRESS}@{commit}" in log.notes
    with pytest.raises(Img2PromptError, match="hf://me/other is not in the local cache and the model hub"):
        load_run("hf://me/other")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    load_run(ADDRESS)
    with pytest.raises(Img2PromptError, match="did not answer, or went away"):
        ipc.push(run, "me/other")
    assert hub.asked == []


def test_a_download_that_is_cut_goes_on(hub: ModelHub, run: Path, impatient: None) -> None:
    ipc.push(run, NAME)
    hub.faults = [Fault("GET .*/head.safetensors", cut=100)]
    assert load_run(ADDRESS).name == "head"
    assert hub.faults[0].times == 0


def test_a_name_that_a_stranger_made_up_stays_on_its_line(hub: ModelHub, run: Path) -> None:
    ipc.push(run, NAME)
    there = hub.repositories[NAME]
    info = json.loads(there.files["bundle.json"])
    there.commit({**there.files, "bundle.json": json.dumps({**info, "name": "x\n---\n\x1b[2J"}).encode()})
    assert [line for line in ipc.card(ADDRESS).splitlines() if line.startswith("# ")] == [
        "# x\\n---\\n\\x1b[2J"
    ]


Change = Callable[[dict[str, bytes]], None]


def listing(files: dict[str, bytes], name: str, data: bytes | None) -> None:
    """Put a file into a repository and its list, or take it out of the list alone."""
    info = json.loads(files["bundle.json"])
    if data is None:
        del info["files"][name]
    else:
        files[name] = data
        info["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    files["bundle.json"] = json.dumps(info).encode()


def larger(files: dict[str, bytes]) -> None:
    info = json.loads(files["bundle.json"])
    info["files"]["run/head.safetensors"]["bytes"] = 1 << 34
    files["bundle.json"] = json.dumps(info).encode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda files: files.pop("bundle.json"), "holds no run"),
        (lambda files: files.pop("run/head.safetensors"), "holds no run, or not all of one"),
        (lambda files: files.update({"bundle.json": b"[" * 99}), "is no run that can be used"),
        (lambda files: files.update({"bundle.json": b" " * (1 << 23)}), "more than"),
        (lambda files: files.update({"run/head.safetensors": b"short"}), "has 5 bytes there"),
        (
            lambda files: files.update({"run/head.safetensors": files["run/head.safetensors"][::-1]}),
            "SHA-256 differs",
        ),
        (lambda files: listing(files, "run/validation.npy", b"x"), "is no file of a shared run"),
        (lambda files: listing(files, "weights/m/model.safetensors", b"x"), "is no file of a shared run"),
        (lambda files: listing(files, "run/../../x.json", b"x"), "is no name of a file"),
        (lambda files: listing(files, "run/x.pkl", b"x"), "of a kind that bundles do not hold"),
        (lambda files: listing(files, "run/held_out.safetensors", None), "it has no run/held_out"),
        (larger, "more than 8,589,934,592"),
    ],
)
def test_what_a_stranger_put_there_is_refused(hub: ModelHub, run: Path, change: Change, said: str) -> None:
    ipc.push(run, NAME)
    there = hub.repositories[NAME]
    files = there.files
    change(files)
    there.commit(files)
    hub.asked.clear()
    with pytest.raises(Img2PromptError, match=said) as caught:
        load_run(ADDRESS)
    assert "\n" not in str(caught.value)
    if "SHA" not in said and "holds" not in said:
        assert not [line for line in hub.asked if line.startswith("GET") and "/run/" in line]


def test_a_file_that_is_not_listed_is_refused(hub: ModelHub, run: Path, tmp_path: Path) -> None:
    commit = ipc.push(run, NAME).commit
    load_run(ADDRESS)
    (snapshot,) = (tmp_path / "hub").glob(f"*/snapshots/{commit}")
    (snapshot / "run" / "validation.npy").write_bytes(b"")
    with pytest.raises(Img2PromptError, match=r"run/validation\.npy is not listed"):
        load_run(ADDRESS)
    (snapshot / "run" / "validation.npy").unlink()
    (snapshot / "run" / "run.json").unlink()
    (snapshot / "run" / "run.json").symlink_to(run / "run.json")
    with pytest.raises(Img2PromptError, match=r"run/run\.json is a link"):
        load_run(ADDRESS)


@pytest.mark.parametrize(
    "address",
    ["hf://me", "hf://", "hf://me/a/b", "hf://me/..", "hf://me/a@", "hf://me/a@b/../c", "hf://a b/c"],
)
def test_what_is_no_address(hub: ModelHub, address: str) -> None:
    with pytest.raises(UsageError, match="`run`"):
        load_run(address)
    with pytest.raises(UsageError, match="`repository`"):
        ipc.push("run", address)
    assert hub.asked == []


def test_a_path_cannot_hold_an_address() -> None:
    with pytest.raises(UsageError, match="give an address as a str"):
        ipc.predict(Path("hf://me/head"), [])


def test_what_takes_held_out_rows_says_so(hub: ModelHub, run: Path) -> None:
    ipc.push(run, NAME)
    with pytest.raises(Img2PromptError, match="was shared without its held-out rows"):
        ipc.top(run.parent.parent, ADDRESS, by="score")
    found = ipc.top(run.parent.parent, ADDRESS)
    assert [each["imgId"] for each in found] == [each["imgId"] for each in ipc.top(run.parent.parent, run)]


def test_a_shared_run_is_bundled_and_shared_again(hub: ModelHub, run: Path, tmp_path: Path) -> None:
    first = ipc.push(run, NAME, with_prompts=True)
    second = ipc.push(ADDRESS, "me/copy", with_prompts=True)
    sizes = [
        {file.name: file.bytes for file in each.files if file.name.startswith(("run/", "bank/"))}
        for each in (first, second)
    ]
    assert sizes[0] == sizes[1]
    one, other = (hub.repositories[name].files for name in (NAME, "me/copy"))
    for name in sizes[0]:
        assert one[name] == other[name]
    clone = tmp_path / "clone"
    for name, data in one.items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes(data)
    assert ipc.predict(clone, rows(run)).vectors.tobytes() == ipc.predict(run, rows(run)).vectors.tobytes()
    shutil.rmtree(clone)
