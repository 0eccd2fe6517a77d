"""``python -m img2prompt_cache.cli``."""

from .main import main

main()
