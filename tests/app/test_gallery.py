from __future__ import annotations

from dataclasses import replace

import pytest

from img2prompt_cache.app.gallery import Gallery
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import ImageError
from img2prompt_cache.reporting.rows import CHANGED, UNKNOWN


@pytest.mark.parametrize(("digest", "reason"), [("", UNKNOWN), ("0" * 64, CHANGED)])
def test_only_images_with_the_bytes_that_were_cached_are_shown(made, digest, reason):
    gallery = Gallery(Cache(made))
    row = int(gallery.shown[0])
    gallery.rows = replace(gallery.rows, digests=[digest] * len(gallery.rows))
    with pytest.raises(ImageError, match=reason):
        gallery.thumbnail(row, 256)
    assert Gallery(Cache(made)).thumbnail(row, 256)[8:12] == b"WEBP"
