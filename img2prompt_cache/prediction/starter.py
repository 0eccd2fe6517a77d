"""The starter bank: a few thousand prompts that ship with the package, of words chosen for it."""

from __future__ import annotations

from pathlib import Path

STARTER = "starter"
"""What takes the place of a file's name for it."""


def find_bank(path: Path) -> Path:
    """Give the file of a bank: the one named, or that of the starter bank for ``starter``.

    A file called ``starter`` in the current folder comes first.
    """
    if path != Path(STARTER) or path.is_file():
        return path
    return Path(__file__).with_name("starter.txt")
