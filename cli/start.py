"""Where the program starts: it can be interrupted quietly before anything large is imported."""

from __future__ import annotations

from typing import NoReturn

from .signals import ignore_when_done, leave_when_asked


def main() -> NoReturn:
    """Run the command line and exit."""
    leave_when_asked()
    ignore_when_done()  # registered before all others, so that it is called last
    from .main import main

    main()
