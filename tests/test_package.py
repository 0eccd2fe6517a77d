from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import img2prompt_cache
from synthetic import make_cache

README = Path(__file__).parents[1] / "README.md"


def test_no_module_hides_what_the_package_exports():
    """A submodule becomes an attribute of its package once anything imports it."""
    modules = {module.name for module in pkgutil.iter_modules(img2prompt_cache.__path__)}
    assert not modules & {*img2prompt_cache.__all__}
    assert all(callable(getattr(img2prompt_cache, name)) for name in img2prompt_cache.__all__)


def test_the_python_of_the_readme_runs(tmp_path):
    make_cache(tmp_path / "cache" / "default")
    example = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[-1]
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert -1 < float(done.stdout) < 1
