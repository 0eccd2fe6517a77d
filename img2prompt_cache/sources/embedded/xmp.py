"""Texts in XMP packets and IPTC records, as Draw Things, Midjourney and IPTC's AI fields store them."""

from __future__ import annotations

import struct
from xml.etree import ElementTree

NAMES = {
    "{http://ns.adobe.com/exif/1.0/}UserComment": "UserComment",
    "{http://purl.org/dc/elements/1.1/}description": "description",
    "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}AIPromptInformation": "AIPromptInformation",
    "{http://ns.adobe.com/xap/1.0/}CreatorTool": "CreatorTool",
}
"""Properties that are read, and their short names."""

_CAPTION = (2, 120)
"""Record and data set number of the caption in IPTC-IIM."""


def xmp_texts(data: bytes) -> dict[str, str]:
    """Read the texts of an XMP packet (ISO 16684-1), where properties are elements, lists or attributes.

    Returns
    -------
    dict of str to str
        The first text of each property. Empty for a packet that is damaged or has a document type.
    """
    if b"<!" in data:  # a document type can define entities that expand to gigabytes; XMP has none
        return {}
    try:
        root = ElementTree.fromstring(data.strip(b"\0 \r\n\t"))  # noqa: S314 - without a document type
    except (ElementTree.ParseError, ValueError):
        return {}
    texts: dict[str, str] = {}
    for element in root.iter():
        for key, value in element.attrib.items():
            if key in NAMES and value.strip():
                texts.setdefault(NAMES[key], value)
        if element.tag in NAMES:
            text = next((text for text in element.itertext() if text.strip()), None)
            if text:
                texts.setdefault(NAMES[element.tag], text)
    return texts


def iptc_caption(data: bytes) -> str | None:
    """Read the caption of the IPTC-IIM records in Photoshop's image resources; None if there is none."""
    at = 0
    while data[at : at + 4] == b"8BIM" and at + 12 <= len(data):
        (kind,) = struct.unpack(">H", data[at + 4 : at + 6])
        name = data[at + 6]
        start = at + 6 + (name + 2 - name % 2)
        if start + 4 > len(data):
            return None
        (size,) = struct.unpack(">I", data[start : start + 4])
        if kind == 0x0404:
            return _caption(data[start + 4 : start + 4 + size])
        at = start + 4 + size + size % 2
    return None


def _caption(data: bytes) -> str | None:
    at = 0
    while at + 5 <= len(data) and data[at] == 0x1C:
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        if (data[at + 1], data[at + 2]) == _CAPTION:
            return data[at + 5 : at + 5 + size].decode("utf-8", errors="replace")
        at += 5 + size
    return None
