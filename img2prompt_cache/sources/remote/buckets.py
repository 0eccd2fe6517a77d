"""Objects in buckets and on the model hub, through fsspec."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.remote.address import scheme_of
from img2prompt_cache.sources.remote.transport import (
    CHUNK,
    PATIENCE,
    Absent,
    Changed,
    Interrupted,
    Object,
    Refused,
    refused,
)

_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "blob_id", "xet_hash", "LastModified", "mtime")
"""Keys of what a store says of an object that change with its contents, the surest first."""
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})
"""Names of botocore's errors, which is not imported for them."""
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "file": "fsspec"}
_INSTALL = {"gs": "pip install gcsfs"}


class Bucket:
    """``s3://``, ``gs://``, ``hf://`` and ``file://``.

    Parameters
    ----------
    address : str

    Raises
    ------
    UsageError
        If the package that reads this scheme is not installed.
    """

    def __init__(self, address: str) -> None:
        self._scheme = scheme_of(address)
        self._files = _open_store(address)

    def find(self, folder: str) -> list[Object]:
        """List a folder."""
        try:
            entries = self._files.ls(self._path(folder), detail=True, refresh=True)
        except Exception as error:
            raise _kind(error) from None
        found = []
        for entry in entries:
            url = f"{self._scheme}://{entry['name']}"
            if entry["type"] == "directory":
                found.append(Object(f"{url.rstrip('/')}/", 0, ""))
            elif url.rstrip("/") != folder:
                found.append(_object(url, entry))
        return found

    def look(self, url: str) -> Object:
        """Ask for one object; nothing that was listed before is believed."""
        try:
            self._files.invalidate_cache()
            entry = self._files.info(self._path(url))
        except Exception as error:
            raise _kind(error) from None
        if entry["type"] == "directory":
            raise Absent
        return _object(url, entry)

    def read(self, known: Object, offset: int, stop: int | None = None) -> Iterator[bytes]:
        """Read range after range."""
        if self.look(known.url) != known:
            raise Changed
        end = known.size if stop is None else stop
        try:
            with self._files.open(self._path(known.url), "rb", cache_type="none") as file:
                file.seek(offset)
                while offset < end:
                    data = file.read(min(CHUNK, end - offset))
                    if not data:
                        raise Interrupted(f"it ended after {offset:,} of {known.size:,} bytes")
                    offset += len(data)
                    yield data
        except (Interrupted, GeneratorExit):
            raise
        except Exception as error:
            raise _kind(error) from None
        if self.look(known.url) != known:
            raise Changed

    def _path(self, url: str) -> str:
        return url.partition("://")[2]


def _open_store(address: str) -> Any:
    scheme = scheme_of(address)
    try:
        import_module(_PACKAGES[scheme])
        import fsspec

        if scheme == "s3":
            # Attempts are counted in one place: that which knows how long the server asked to wait.
            timeouts = {"connect_timeout": 20, "read_timeout": PATIENCE.timeout}
            config = {**timeouts, "retries": {"total_max_attempts": 1}}
            public = not _has_credentials(address)
            files = fsspec.filesystem("s3", config_kwargs=config, anon=public, skip_instance_cache=True)
            files.retries = 1
            return files
        return fsspec.filesystem(scheme, skip_instance_cache=True)
    except ImportError:
        command = _INSTALL.get(scheme, "pip install 'img2prompt-cache[remote]'")
        raise UsageError(
            f"{scheme}:// is read by {_PACKAGES[scheme]}, which is not installed or too old; run `{command}`",
            parameter="source",
        ) from None


def _has_credentials(address: str) -> bool:
    """Whether AWS's tools find credentials here; without any, a bucket can still be public."""
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    try:
        return Session().get_credentials() is not None
    except BotoCoreError as error:
        raise refused(address, error) from None


def _object(url: str, entry: dict[str, Any]) -> Object:
    version = next((str(entry[key]) for key in _VERSIONS if entry.get(key)), "")
    return Object(url, int(entry["size"] or 0), version.strip('"'))


def _kind(error: Exception) -> Exception:
    """Say what an error of any of these libraries means for the object."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or one.__context__
    names = {type(each).__name__ for each in chain}
    answers = [getattr(each, "response", None) for each in chain]
    described = [answer.get("ResponseMetadata", {}) for answer in answers if isinstance(answer, dict)]
    status = next((each.get("HTTPStatusCode") for each in described), None)
    codes = [each.args[0] for each in chain if isinstance(each, OSError) and each.args]
    if isinstance(error, Absent | Changed | Refused | Interrupted | UsageError):
        return error
    if "FileExpired" in names or status == 412:
        return Changed()
    if isinstance(error, FileNotFoundError | NotADirectoryError) or status == 404:
        return Absent()
    if isinstance(error, PermissionError) or status in (401, 403) or names & _NO_CREDENTIALS:
        return Refused(str(error) or "access denied")
    if errno.ENOSPC in codes:
        return error
    headers: dict[str, str] = next((each.get("HTTPHeaders", {}) for each in described), {})
    asked = str(headers.get("retry-after", ""))
    return Interrupted(str(error) or type(error).__name__, float(asked) if asked.isdigit() else 0.0)
