"""Numbered checks of a cache and its runs: what deserves a look, how grave it is, and what to do about it."""
