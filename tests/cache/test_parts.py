"""Parts against plain h5py, and files that are not parts."""

from __future__ import annotations

import gc
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from img2prompt_cache.cache.part_text import read_text
from img2prompt_cache.cache.parts import Loader, PartFile, map_values
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.files import hash_file


def write(path: Path, values: np.ndarray, text: list[str] | None = None) -> tuple[int, str]:
    with PartFile(path) as part:
        part.create("values", values.shape, str(values.dtype))
        if len(values):
            part.write("values", 0, values)
        part.write_text("prompt", text or [])
        return part.commit()


VALUES = np.arange(30, dtype=np.float16).reshape(6, 5)


@settings(max_examples=40, deadline=None)
@given(
    values=st.sampled_from([np.float16, np.float32, np.int8]).flatmap(
        lambda dtype: arrays(dtype, array_shapes(max_dims=3, max_side=9))
    )
)
def test_mapped_values_are_what_h5py_reads(
    values: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("part") / "00000.h5"
    write(path, values)
    mapped = map_values(path, "values", values.shape, str(values.dtype))
    assert isinstance(mapped.base, np.memmap)
    assert not mapped.flags.writeable
    with h5py.File(path) as file:
        assert file["values"].chunks is None
        np.testing.assert_array_equal(mapped, file["values"][()])
    np.testing.assert_array_equal(mapped, values)


def test_no_rows_map_to_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", np.empty((0, 4), np.float32))
    assert map_values(tmp_path / "a.h5", "values", (0, 4), "float32").shape == (0, 4)


@settings(max_examples=40, deadline=None)
@given(text=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_text_comes_back_as_it_was(text: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("part") / "00000.h5"
    write(path, VALUES, text)
    assert read_text(path, ["prompt"], len(text)) == {"prompt": text}
    with h5py.File(path) as file:
        assert file["prompt"].asstr()[()].tolist() == text


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    size, sha256 = write(tmp_path / "one" / "a.h5", VALUES, ["é", "船"])
    again = write(tmp_path / "other" / "b.h5", VALUES, ["é", "船"])
    data = (tmp_path / "one" / "a.h5").read_bytes()
    assert again == (size, sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert hash_file(tmp_path / "other" / "b.h5") == sha256


def test_rows_can_be_written_and_read_back_out_of_order(tmp_path: Path) -> None:
    with PartFile(tmp_path / "a.h5") as part:
        part.create("values", VALUES.shape, "float16")
        part.write("values", 3, VALUES[3:])
        np.testing.assert_array_equal(part.read("values", 4), VALUES[4])
        part.write("values", 0, VALUES[:3])
        part.commit()
        with pytest.raises(ValueError, match="closed"):
            part.write("values", 0, VALUES)
    np.testing.assert_array_equal(map_values(tmp_path / "a.h5", "values", (6, 5), "float16"), VALUES)


def test_a_part_has_its_name_only_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"

    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert not list(tmp_path.iterdir())
    write(path, VALUES)
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    np.testing.assert_array_equal(map_values(path, "values", (6, 5), "float16"), VALUES)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


def test_a_part_that_cannot_be_begun_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(h5py, "File", full)
    with pytest.raises(OSError, match="No space"):
        PartFile(tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())


def interrupted(path: Path) -> None:
    before = path.exists()
    with PartFile(path) as part:
        part.create("values", (6, 5), "float16")
        assert path.exists() == before
        raise KeyboardInterrupt


def hostile_values(path: Path, how: str) -> None:
    """Make a file that says it holds VALUES, but lies elsewhere or otherwise."""
    secret = path.with_name("secret.h5")
    write(secret, VALUES)
    if how == "a link":
        path.symlink_to(secret)
        return
    if how == "a pipe":
        os.mkfifo(path)
        return
    if how == "a folder":
        path.mkdir()
        return
    with h5py.File(path, "w") as file:
        if how == "an external link":
            file["values"] = h5py.ExternalLink(str(secret), "values")
        elif how == "a soft link":
            file["own"] = VALUES
            file["values"] = h5py.SoftLink("/own")
        elif how == "a virtual dataset":
            layout = h5py.VirtualLayout(VALUES.shape, VALUES.dtype)
            layout[:] = h5py.VirtualSource(str(secret), "values", VALUES.shape)
            file.create_virtual_dataset("values", layout)
        elif how == "external storage":
            path.with_name("raw").write_bytes(VALUES.tobytes())
            file.create_dataset(
                "values", VALUES.shape, VALUES.dtype, external=[(str(path.with_name("raw")), 0, 60)]
            )
        elif how == "a group":
            file.create_group("values")
        elif how == "chunks":
            file.create_dataset("values", data=VALUES, chunks=(2, 5))
        elif how == "compression":
            file.create_dataset("values", data=VALUES, compression="gzip")
        elif how == "never written":
            file.create_dataset("values", VALUES.shape, VALUES.dtype)
        elif how == "objects":
            file.create_dataset("values", VALUES.shape, h5py.string_dtype())
        elif how == "references":
            file.create_dataset("values", VALUES.shape, h5py.ref_dtype)
        elif how == "the other byte order":
            file["values"] = VALUES.astype(">f2")
        elif how == "another shape":
            file["values"] = VALUES.T
        elif how == "absurd":
            file.create_dataset("values", (1 << 40, 1 << 20), np.float16)
        else:
            assert how == "nothing"


HOSTILE = (
    *("a link", "a pipe", "a folder", "an external link", "a soft link", "a virtual dataset"),
    *("external storage", "a group", "chunks", "compression", "never written", "objects", "references"),
    *("the other byte order", "another shape", "absurd", "nothing"),
)


@pytest.mark.parametrize("how", HOSTILE)
def test_a_dataset_that_is_not_plain_is_refused(how: str, tmp_path: Path) -> None:
    path = tmp_path / "00000.h5"
    hostile_values(path, how)
    with pytest.raises(Img2PromptError, match=r"00000\.h5 .*verify"):
        map_values(path, "values", VALUES.shape, "float16")


@pytest.mark.parametrize("how", ["external", "soft", "numbers", "fixed length", "ascii", "too many", "group"])
def test_text_that_is_not_plain_is_refused(how: str, tmp_path: Path) -> None:
    path = tmp_path / "00000.h5"
    write(tmp_path / "secret.h5", VALUES, ["a", "b"])
    with h5py.File(path, "w") as file:
        if how == "external":
            file["prompt"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "prompt")
        elif how == "soft":
            file["own"] = ["a", "b"]
            file["prompt"] = h5py.SoftLink("/own")
        elif how == "numbers":
            file["prompt"] = [1, 2]
        elif how == "fixed length":
            file["prompt"] = np.array([b"a", b"b"])
        elif how == "ascii":
            file.create_dataset("prompt", data=["a", "b"], dtype=h5py.string_dtype("ascii"))
        elif how == "too many":
            file["prompt"] = ["a", "b", "c"]
        else:
            file.create_group("prompt")
    with pytest.raises(Img2PromptError, match=r"00000\.h5 .*verify"):
        read_text(path, ["prompt"], 2)


BOMB = """
import resource, sys
from pathlib import Path
from img2prompt_cache.cache.part_text import read_text
from img2prompt_cache.errors import Img2PromptError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_text(Path(sys.argv[1]), ["imgId", "prompt"], int(sys.argv[2]))
except Img2PromptError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def bomb(path: Path, how: str) -> int:
    """Make a small file that says it holds much text; give how many strings."""
    rows = 2000
    with h5py.File(path, "w") as file:
        file.create_dataset("imgId", data=[b"a"] * rows, dtype=h5py.string_dtype())
        if how == "one string many times":
            file.create_dataset(
                "prompt", data=[b"a" * 1_000_000] + [b"b"] * (rows - 1), dtype=h5py.string_dtype()
            )
            offset = file["prompt"].id.get_offset()
        elif how == "filters":
            text = [b"a" * 100] * rows
            file.create_dataset("prompt", data=text, dtype=h5py.string_dtype(), compression="gzip")
        else:
            kind = h5py.string_dtype("utf-8", 1_000_000)
            layout = {"chunks": (1,), "compression": "gzip"} if how == "fixed lengths, filtered" else {}
            file.create_dataset("prompt", (rows,), kind, **layout)
    if how == "one string many times":
        data = bytearray(path.read_bytes())
        data[offset : offset + 16 * rows] = data[offset : offset + 16] * rows
        path.write_bytes(data)
    return rows


@pytest.mark.skipif(os.name != "posix", reason="measures memory")
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("one string many times", "it has more text than bytes"),
        ("filters", "is not stored in one piece"),
        ("fixed lengths", "not 2000 UTF-8 strings"),
        ("fixed lengths, filtered", "not 2000 UTF-8 strings"),
    ],
)
def test_text_that_is_larger_than_its_file_is_refused_before_it_is_read(
    how: str, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "00000.h5"
    rows = bomb(path, how)
    assert path.stat().st_size < 2_000_000
    found = subprocess.run(
        [sys.executable, "-c", BOMB, path, str(rows)], capture_output=True, text=True, check=True
    )
    message, megabytes = found.stdout.splitlines()
    assert why in message
    assert int(megabytes) < 20


def test_a_text_part_without_room_for_its_strings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "00000.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("prompt", (5,), h5py.string_dtype())  # never written
        file.create_dataset("many", (1 << 24,), h5py.string_dtype())
    for name, rows in (("prompt", 5), ("many", 1 << 24)):
        with pytest.raises(Img2PromptError, match="is not stored in one piece"):
            read_text(path, [name], rows)


def test_text_in_no_known_encoding_is_read_with_marks(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("prompt", data=[b"\xff boat"], dtype=h5py.string_dtype("utf-8"))
    assert read_text(tmp_path / "a.h5", ["prompt"], 1)["prompt"] == ["� boat"]


def test_a_part_cut_anywhere_is_refused_or_whole(tmp_path: Path) -> None:
    path = tmp_path / "00000.h5"
    values = np.arange(3000, dtype=np.float32).reshape(30, 100)
    size, _ = write(path, values, ["boat"] * 30)
    data = path.read_bytes()
    for share in range(20):
        path.write_bytes(data[: size * share // 20])
        with pytest.raises(Img2PromptError, match=r"00000\.h5"):
            map_values(path, "values", values.shape, "float32")
        with pytest.raises(Img2PromptError, match=r"00000\.h5"):
            read_text(path, ["prompt"], 30)


@pytest.mark.parametrize("signature", [b"TREE", b"HEAP", b"SNOD", b"GCOL", b"\x89HDF"])
def test_damage_inside_is_told_as_such(signature: bytes, tmp_path: Path) -> None:
    path = tmp_path / "00000.h5"
    write(path, VALUES, ["boat"])
    assert signature in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(signature, b"XXXX"))
    with pytest.raises(Img2PromptError, match=r"00000\.h5 cannot be read as HDF5"):
        read_text(path, ["prompt"], 1)


def test_a_part_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Img2PromptError, match=r"00000\.h5 is missing.*verify"):
        map_values(tmp_path / "00000.h5", "values", (1, 1), "float16")


def test_a_whole_dataset_is_read_and_checked_in_each_part(tmp_path: Path) -> None:
    paths = [tmp_path / f"0000{number}.h5" for number in range(3)]
    values = np.arange(24, dtype=np.float16).reshape(3, 4, 2)
    for path, each in zip(paths, values, strict=True):
        with PartFile(path) as file:
            file.create("values", (4, 2), "float16")
            file.write("values", 0, each)
            file.commit()
    loader, out = Loader(), np.empty((4, 2), np.float16)
    for path, each in zip(paths, values, strict=True):
        loader.read(path, "values", out)
        np.testing.assert_array_equal(out, each)
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    with pytest.raises(Img2PromptError, match=r"00001\.h5"):
        loader.read(paths[1], "values", out)
    paths[2].write_bytes(b"no part" + paths[2].read_bytes()[7:])
    with pytest.raises(Img2PromptError, match=r"00002\.h5 cannot be read as HDF5"):
        loader.read(paths[2], "values", out)
    paths[1].unlink()
    with pytest.raises(Img2PromptError, match=r"00001\.h5 is missing"):
        loader.read(paths[1], "values", out)
    paths[1].symlink_to(paths[0])
    with pytest.raises(Img2PromptError, match="not a plain file"):
        loader.read(paths[1], "values", out)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_an_interrupt_while_hdf5_opens_a_part_leaves_nothing(tmp_path, monkeypatch):
    """HDF5 wrote to the file when its handle went, after it had been closed, and a traceback was printed."""
    unraisable = []
    real = h5py.File

    def interrupted(*arguments, **options):
        made = real(*arguments, **options)
        raise KeyboardInterrupt(made)  # its handle lives on with the exception

    monkeypatch.setattr(h5py, "File", interrupted)
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with pytest.raises(KeyboardInterrupt) as caught:
        PartFile(tmp_path / "part.h5")
    assert not list(tmp_path.iterdir())
    del caught
    gc.collect()
    assert not [each for each in unraisable if not isinstance(each.exc_value, ResourceWarning)]
