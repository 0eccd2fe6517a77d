"""Where the program starts: it can be interrupted quietly before anything large is imported."""

from __future__ import annotations

from typing import NoReturn

from .signals import leave_when_asked


def main() -> NoReturn:
    """Run the command line and exit."""
    leave_when_asked()
    from .main import main

    main()
