"""Pages checked: well-formed, self-contained, and told to those who cannot see them."""

from __future__ import annotations

import re
from typing import Any

from img2prompt_cache.reporting.page import MARK

LOADS = {"src", "href", "srcset", "data", "poster", "action", "formaction", "xlink:href", "background"}


def parse(text: str) -> Any:
    """Parse a page; anything that is not well-formed is an error."""
    import html5lib

    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(text)


def name_of(key: Any) -> str:
    return f"xlink:{key[1]}" if isinstance(key, tuple) else str(key).rpartition("}")[2]


def check_page(text: str) -> Any:
    """Check what holds of every page; return its tree."""
    assert text.startswith(MARK)
    tree = parse(text)
    identifiers = [each.attrib["id"] for each in tree.iter() if "id" in each.attrib]
    assert len({*identifiers}) == len(identifiers)
    for element in tree.iter():
        if not isinstance(element.tag, str):
            continue
        if element.tag == "img" and element.get("src") != "data:,":
            assert element.get("alt"), "a picture without alternative text"
        assert element.tag not in ("link", "iframe", "object", "embed", "base", "video", "audio")
        for key, value in element.attrib.items():
            name = name_of(key)
            assert not name.startswith("on"), name
            if name in LOADS:
                assert value.startswith(("data:", "#", "images/")), value
            for each in ("aria-labelledby", "aria-describedby"):
                if name == each:
                    assert {*value.split()} <= {*identifiers}
    for figure in tree.iter("figure"):
        if "figure" in figure.get("class", "").split():
            assert list(figure.iter("table")), "a chart without its table"
            assert list(figure.iter("figcaption"))
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    return tree
