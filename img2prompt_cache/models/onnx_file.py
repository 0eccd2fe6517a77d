"""ONNX files: written as a whole, with metadata of ours, and opened with mistrust.

A file is read before a runtime sees it, and refused by name if it has no metadata of ours, is of another
fingerprint or kind, is cut short, takes data from another folder, or has operators that are not of ONNX.

Examples
--------
>>> graph = export_graph(module, {"pixels": torch.zeros(2, 224, 224, 3, dtype=torch.uint8)}, ["features"])
... # doctest: +SKIP
>>> write_graph(graph, path, kind="backbone", fingerprint=digest(fingerprint))  # doctest: +SKIP
>>> file = read_graph(path, kind="backbone", fingerprint=digest(fingerprint))  # doctest: +SKIP
>>> file.session(threads=1).run(["features"], {"pixels": pixels})  # doctest: +SKIP
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from img2prompt_cache.errors import Img2PromptError, UsageError, check, first_line
from img2prompt_cache.files import Replacement, hash_file
from img2prompt_cache.models.onnx_audit import audit
from img2prompt_cache.models.onnx_graph import require, silent

if TYPE_CHECKING:
    import onnx
    import onnxruntime

Kind = Literal["backbone", "run"]

FORMAT = "1"
LARGEST = (1 << 31) - (1 << 20)
"""Bytes that a protocol buffer may have, with some room for metadata; of larger graphs, the data lies beside
the file."""
_OWN, _KIND, _FINGERPRINT, _DATA = "img2prompt-cache", "kind", "fingerprint", "data_sha256"
_MOST_METADATA = 1 << 24


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """An ONNX file that was read and found to be one of ours.

    Attributes
    ----------
    path : pathlib.Path
    kind : {"backbone", "run"}
    fingerprint : str
        What it was made of, as `write_graph` was told: 64 hex digits.
    metadata : dict of str to str
        The rest of it.
    source : bytes or str
        What a runtime is to be given: the bytes that were checked, so that nobody can exchange the file
        meanwhile; or the path, if the data lies beside it.
    inputs : dict of str to tuple
        Name to shape without the batch.
    outputs : tuple of str
    """

    path: Path
    kind: Kind
    fingerprint: str
    metadata: dict[str, str]
    source: bytes | str = field(repr=False)
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]

    def session(self, threads: int = 0) -> onnxruntime.InferenceSession:
        """Open it in ONNX Runtime, on the processor, with no operator but the runtime's own.

        Parameters
        ----------
        threads : int
            Of one operator; as many as there are cores if 0.

        Raises
        ------
        UsageError
            If ONNX Runtime is not installed.
        Img2PromptError
            If it cannot run the graph.
        """
        return open_session(self.source, threads, self.path)


def open_session(source: bytes | str, threads: int = 0, path: Path | None = None) -> Any:
    """Open a graph in ONNX Runtime as `OnnxFile.session` does; one that was not written yet, too."""
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Img2PromptError(
            f"{path or 'the graph'}: ONNX Runtime cannot run it: {first_line(error, 300)}"
        ) from error


def write_graph(
    graph: onnx.ModelProto,
    path: Path,
    *,
    kind: Kind,
    fingerprint: str,
    metadata: Mapping[str, str] | None = None,
    trial: Callable[[str], None] | None = None,
) -> int:
    """Check a graph and write it as a file that `read_graph` opens; it appears when it is whole.

    Parameters
    ----------
    graph : onnx.ModelProto
        From `export_graph`; gets the metadata.
    path : pathlib.Path
        In a folder that is there. What is there is replaced: asking is up to the caller. Data of a graph of
        more than 2 GB lies beside it, in ``NAME.data``.
    kind : {"backbone", "run"}
    fingerprint : str
        64 hex digits, from `fingerprints.digest`.
    metadata : mapping of str to str, optional
        What else a reader needs to know.
    trial : callable, optional
        Called with the path of the file before it gets its name. What it raises is passed on, and nothing is
        replaced.

    Returns
    -------
    int
        Bytes that were written.

    Raises
    ------
    Img2PromptError
        If the graph is not valid.
    OSError
        If it cannot be written; what was there is kept.
    """
    import onnx

    more = dict(metadata or {})
    for name in (_OWN, _KIND, _FINGERPRINT, _DATA):
        if name in more:
            raise ValueError(f"the metadata {name} is not the caller's")
    data = path.with_name(f"{path.name}.data")
    beside = graph.ByteSize() > LARGEST
    with Replacement(path) as new:
        if not beside:
            # Last, because a file that is cut short lacks it.
            _note(graph, {_KIND: kind, _FINGERPRINT: fingerprint, **more, _OWN: FORMAT})
            new.temporary.write_bytes(graph.SerializeToString(deterministic=True))
            _check(new.temporary, path)
            if trial is not None:
                trial(str(new.temporary))
            size = new.temporary.stat().st_size
            new.commit()
            data.unlink(missing_ok=True)
            return size
        with Replacement(data) as values:
            values.temporary.unlink()  # onnx appends to what is there
            onnx.external_data_helper.convert_model_to_external_data(
                graph, all_tensors_to_one_file=True, location=values.temporary.name, size_threshold=1 << 10
            )
            onnx.save_model(graph, new.temporary)
            _check(new.temporary, path)
            if trial is not None:
                trial(str(new.temporary))
            graph = onnx.load_model(new.temporary, load_external_data=False)
            for tensor in graph.graph.initializer:
                for entry in tensor.external_data:
                    if entry.key == "location":
                        entry.value = data.name
            said = {_KIND: kind, _FINGERPRINT: fingerprint, **more, _DATA: hash_file(values.temporary)}
            _note(graph, {**said, _OWN: FORMAT})
            new.temporary.write_bytes(graph.SerializeToString(deterministic=True))
            size = new.temporary.stat().st_size + values.temporary.stat().st_size
            new.flush()
            values.commit()
        new.commit()
    return size


def read_graph(path: Path, *, kind: Kind, fingerprint: str | None = None) -> OnnxFile:
    """Read an ONNX file, whoever wrote it, and refuse it if it is not one of ours.

    Nothing of it runs. It is read into memory, so it takes as much as the file has bytes, twice for a moment;
    one of more than 2 GB is refused, and data beside it is only hashed.

    Parameters
    ----------
    path : pathlib.Path
    kind : {"backbone", "run"}
        What it must be.
    fingerprint : str, optional
        What it must have been made of, 64 hex digits; anything if absent.

    Raises
    ------
    UsageError
        If there is no such file.
    Img2PromptError
        Saying what is wrong: it has no metadata of ours or of another version, kind or fingerprint; it is cut
        short or damaged; it takes data from elsewhere; it has operators of another domain, or loops.
    """
    import onnx

    try:
        found = path.stat()
        check(stat.S_ISREG(found.st_mode), "it is no plain file")
        check(found.st_size <= LARGEST + _MOST_METADATA, "it has more bytes than an ONNX file can have")
        content = path.read_bytes()
        try:
            graph = onnx.ModelProto.FromString(content)
        except Exception:  # of the protobuf library, which has several implementations
            raise ValueError("it is cut short, or no ONNX file") from None
        metadata = _metadata(graph)
        data = audit(graph, path.parent)
        version = metadata.pop(_OWN, None)
        check(version is not None, "it has no metadata of img2prompt-cache, or is cut short")
        check(version == FORMAT, f"it is of format {str(version)[:20]}, and this version reads {FORMAT}")
        made, of = metadata.pop(_KIND, ""), metadata.pop(_FINGERPRINT, "")
        check(made == kind, f"it holds a {made[:20] or 'graph of no kind'}, not a {kind}")
        check(
            fingerprint in (None, of), f"its fingerprint is {of[:16] or 'missing'}…, not {fingerprint or ''}"
        )
        digest = metadata.pop(_DATA, None)
        beside = [path.with_name(f"{path.name}.data")] if digest else []
        check([*data] == beside, "the data beside it is not what its metadata says")
        check(not beside or hash_file(beside[0]) == digest, f"its data {path.name}.data is damaged")
        inputs, outputs = _signature(graph)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except OSError as error:
        raise Img2PromptError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise Img2PromptError(f"{path} cannot be used: {error}") from error
    _check(str(path) if beside else content, path)
    return OnnxFile(path, kind, of, metadata, str(path) if beside else content, inputs, outputs)


def _note(graph: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    del graph.metadata_props[:]
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise TypeError(f"the metadata {key} must be a str, not {type(value).__name__}")
        graph.metadata_props.add(key=key, value=value)


def _metadata(graph: onnx.ModelProto) -> dict[str, str]:
    size = sum(len(entry.key) + len(entry.value) for entry in graph.metadata_props)
    check(size <= _MOST_METADATA, "its metadata is too long")
    return {entry.key: entry.value for entry in graph.metadata_props}


def _signature(graph: onnx.ModelProto) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    inputs = {}
    for value in graph.graph.input:
        sizes = value.type.tensor_type.shape.dim
        check(len(sizes) > 0 and not sizes[0].HasField("dim_value"), f"its input {value.name} has no batch")
        shape = tuple(size.dim_value for size in sizes[1:])
        check(all(size > 0 for size in shape), f"its input {value.name} has no known shape")
        inputs[value.name] = shape
    return inputs, tuple(value.name for value in graph.graph.output)


def _check(source: bytes | str | Path, path: Path) -> None:
    """Have ONNX's own checker read a graph, and derive the shapes of its values."""
    import onnx

    try:
        with silent():
            onnx.checker.check_model(source if isinstance(source, bytes) else str(source), full_check=True)
    except Exception as error:
        raise Img2PromptError(f"{path} is no valid ONNX graph: {first_line(error, 300)}") from error
