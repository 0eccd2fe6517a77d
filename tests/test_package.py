from __future__ import annotations

import pkgutil

import img2prompt_cache


def test_no_module_hides_what_the_package_exports():
    """A submodule becomes an attribute of its package once anything imports it."""
    modules = {module.name for module in pkgutil.iter_modules(img2prompt_cache.__path__)}
    assert not modules & {*img2prompt_cache.__all__}
    assert all(callable(getattr(img2prompt_cache, name)) for name in img2prompt_cache.__all__)
