"""What ``fit --settings HEAD`` prints: the settings of a head."""

from __future__ import annotations

import json as json_values

from . import console


def list_settings(head: str, json: bool) -> None:
    """Print the settings of a head, from the declarations that `--set`, `tune` and the documentation use."""
    from img2prompt_cache.heads import settings_of, space_of
    from img2prompt_cache.heads.space import to_json

    listed, searched = settings_of(head), to_json(space_of(head))
    if json:
        records = [
            {
                "name": each.name,
                "type": each.type,
                "default": each.default,
                "search": searched.get(each.name),
                "description": each.description,
            }
            for each in listed.values()
        ]
        console.result_json({"head": head, "settings": records})
    elif listed:
        rows = [
            [
                each.name,
                each.type,
                json_values.dumps(each.default),
                json_values.dumps(searched[each.name]) if each.name in searched else None,
                each.description,
            ]
            for each in listed.values()
        ]
        console.result(console.table(["setting", "type", "default", "searched by tune", "meaning"], rows))
    else:
        console.result(f"{head} has no settings")
