"""Finds the packages; everything else stands in pyproject.toml.

`packages.find` of pyproject.toml cannot name a package that lies elsewhere, and the command line, which is
installed as `img2prompt_cache.cli`, lies in `cli/`.
"""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["img2prompt_cache*"]), "img2prompt_cache.cli"])
