"""Make the README's pictures: the flow, the seed's loss curves, and what the demo predicts.

python docs/pictures.py flow
python docs/pictures.py curves               # after `benchmarks/seed.py`
python docs/pictures.py predictions demo     # after `img2prompt-cache demo --json > demo.json`
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent

BOXES = {
    "images": (20, 34, "images + prompts", "folder + table, PNG metadata,\ntar shards, parquet"),
    "decode": (260, 34, "decode once", "RGB by stated rules,\nbad files become rows\nwith a reason"),
    "backbones": (500, 34, "frozen backbones", "ResNet · ViT · CLIP"),
    "encoder": (500, 130, "frozen encoder", "all-MiniLM-L6-v2, 384-d"),
    "cache": (740, 82, "cache (HDF5)", "immutable parts, resumable,\nfingerprinted"),
    "heads": (500, 260, "heads, in seconds", "mean · nearest · kNN\nridge · MLP"),
    "runs": (260, 260, "runs", "scores on grouped hold-outs"),
    "predict": (20, 260, "predict", "384-d embedding and\nthe nearest prompts"),
}
ARROWS = [
    ("images", "decode"),
    ("decode", "backbones"),
    ("images", "encoder"),
    ("backbones", "cache"),
    ("encoder", "cache"),
    ("cache", "heads"),
    ("heads", "runs"),
    ("runs", "predict"),
]
WIDTH, HEIGHT = 200, 84


def flow() -> str:
    """Draw the flow as SVG."""
    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 370" font-family="sans-serif">',
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#567"/></marker></defs>',
        '<rect width="960" height="370" fill="#fff"/>',
        '<text x="20" y="20" font-size="13" fill="#567">extract: one pass, slow, once</text>',
        '<text x="20" y="245" font-size="13" fill="#567">fit · compare · predict: fast, as often as you like</text>',
    ]
    for start, end in ARROWS:
        x1, y1, x2, y2 = _line(start, end)
        out.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#567" stroke-width="1.6" marker-end="url(#a)"/>'
        )
    for name, (x, y, title, text) in BOXES.items():
        colour = "#fdf1d6" if name == "cache" else "#eaf2fb"
        out.append(
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{colour}" stroke="#567"/>'
        )
        out.append(f'<text x="{x + 12}" y="{y + 22}" font-size="14" font-weight="bold">{title}</text>')
        for i, line in enumerate(text.split("\n")):
            out.append(f'<text x="{x + 12}" y="{y + 41 + 15 * i}" font-size="11.5" fill="#345">{line}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def _line(start: str, end: str) -> tuple[int, int, int, int]:
    (x1, y1), (x2, y2) = BOXES[start][:2], BOXES[end][:2]
    if start == "cache":
        return x1 + WIDTH // 2, y1 + HEIGHT, x2 + WIDTH + 4, y2 + HEIGHT // 2
    if (start, end) == ("images", "encoder"):
        return x1 + WIDTH // 2, y1 + HEIGHT, x2 - 2, y2 + HEIGHT // 2
    if x2 > x1:
        return x1 + WIDTH, y1 + HEIGHT // 2, x2 - 2, y2 + HEIGHT // 2
    return x1, y1 + HEIGHT // 2, x2 + WIDTH + 2, y2 + HEIGHT // 2


def predictions(demo: Path, found: Path) -> Image.Image:
    """Draw the demo's held-out scenes with their true prompts and the nearest ones found."""
    items = json.loads(found.read_text(encoding="utf-8"))["predictions"][:6]
    size, gap, text = 200, 16, 260
    sheet = Image.new("RGB", (3 * (size + text + gap) + gap, 2 * (size + gap) + gap), "white")
    pen = ImageDraw.Draw(sheet)
    plain, small = ImageFont.load_default(13), ImageFont.load_default(11)
    for i, item in enumerate(items):
        x, y = gap + (i % 3) * (size + text + gap), gap + (i // 3) * (size + gap)
        with Image.open(demo / "new" / f"{item['imgId']}.png") as picture:
            sheet.paste(picture.convert("RGB").resize((size, size)), (x, y))
        left, line = x + size + 10, y
        for words, font, colour in [
            (f"true: {item['truth']}", plain, "#000"),
            *((f"{near['cosine']:.2f}  {near['prompt']}", small, "#246") for near in item["prompts"]),
        ]:
            for row in textwrap.wrap(words, 36 if font is plain else 42):
                pen.text((left, line), row, fill=colour, font=font)
                line += 16 if font is plain else 14
            line += 6
    return sheet


def curves(figures: Path) -> str:
    """Draw the loss curves of the seed's systems as SVG, one panel each on one scale."""
    found = json.loads(figures.read_text(encoding="utf-8"))["figures"]["curves"]
    width, height, left, top = 260, 170, 66, 34
    values = [row[side] for rows in found.values() for row in rows for side in ("train_loss", "val_loss")]
    low, high = min(values), max(values)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + 3 * (width + 24)} {top + height + 44}" '
        'font-family="sans-serif" font-size="11.5">',
        f'<rect width="{left + 3 * (width + 24)}" height="{top + height + 44}" fill="#fff"/>',
    ]
    for i, (name, rows) in enumerate(found.items()):
        x0, last = left + i * (width + 24), rows[-1]["epoch"]
        out.append(f'<rect x="{x0}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#9ab"/>')
        out.append(f'<text x="{x0}" y="{top - 10}" font-size="13" font-weight="bold">{name}</text>')
        for side, colour in (("train_loss", "#888"), ("val_loss", "#c33")):
            points = " ".join(
                f"{x0 + width * row['epoch'] / last:.1f},{top + height * (high - row[side]) / (high - low):.1f}"
                for row in rows
            )
            out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        for epoch in range(0, int(last) + 1, 5):
            x = x0 + width * epoch / last
            out.append(f'<text x="{x:.0f}" y="{top + height + 15}" text-anchor="middle">{epoch}</text>')
        for j in range(4 if i == 0 else 0):
            y = top + height * (0.1 + 0.8 * j / 3)
            value = high - (high - low) * (0.1 + 0.8 * j / 3)
            out.append(f'<text x="{x0 - 6}" y="{y + 4:.0f}" text-anchor="end">{value:.5f}</text>')
    out.append(
        f'<text x="{left}" y="{top + height + 36}">epoch; mean squared error: <tspan fill="#888">grey, rows '
        'trained on (with dropout, but for epoch 0)</tspan>, <tspan fill="#c33">red, rows held out</tspan></text>'
    )
    return "\n".join([*out, "</svg>"]) + "\n"


if __name__ == "__main__":
    if sys.argv[1] == "flow":
        (HERE / "flow.svg").write_text(flow(), encoding="utf-8")
    elif sys.argv[1] == "curves":
        results = HERE.parent / "benchmarks" / "results" / "seed.json"
        (HERE / "seed.svg").write_text(curves(results), encoding="utf-8")
    else:
        folder = Path(sys.argv[2])
        predictions(folder, folder.with_suffix(".json")).save(HERE / "predictions.png", optimize=True)
