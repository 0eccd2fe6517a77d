"""``python -m img2prompt_cache.cli``."""

from .start import main

main()
