"""The README and the pages of `docs/`: examples run, links lead somewhere, figures are measured.

A fenced example behind a line ``<!-- test -->`` is run here; GitHub and Sphinx do not show that line.

- ``console``: each line that begins with ``$ `` is a command of img2prompt-cache and must end with exit code
  0; other lines show output and are not compared. The days of `recipes.md` are run by `days/` instead.
- ``python``: run as it is. All examples of a page share one namespace, and one folder with its commands.

Examples start in a folder that holds `images/` with `prompts.csv` beside it, `external/` with its own
`prompts.csv`, `new/` with three more images, `sample_submission.csv` with these, `prompts.txt`, `space.json`
and the finished cache `cache/default`. Pre-trained models are replaced by small ones with random weights that
are named like them (`stand_ins`). What needs a model hub, Ray, a cluster or much data is not marked; its
options are checked all the same. The four recipes of the README, not marked either, start without a cache.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
import typer

from img2prompt_cache.cache.manifest import column_folder
from img2prompt_cache.cli import main
from kit import paint, save_backbone, save_clip, save_encoder, write_prompts

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = [*PAGES, ROOT / "CHANGELOG.md"]
MARK = "<!-- test -->"
CLIPPED = (
    *("optimism", "straddl", "joined", "Gram ", "best of ten draws", "twin", "pulled back", "held against"),
    *("had? no say", "have no say", "ever after", "encoders? say", "said in one line", "(?<!linear )probe"),
    *("(?<!-small-)saliency", "chose all it chooses", "what .{3,20} said", "the seed's", "is told"),
)
"""Phrases of earlier pages that new users did not understand; allowed in code, where they are names."""
FOREIGN = ("--ar",)
"""Options that the text names and that are not ours."""


@dataclass(frozen=True)
class Example:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    runs: bool

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its command lines of img2prompt-cache, without the prompt and comments."""
        if self.language not in ("console", "bash"):
            return []
        lines = [line for line in self.text.splitlines() if not line.startswith("#")]
        found = [line[line.index("img2prompt-cache ") :] for line in lines if "img2prompt-cache " in line]
        found = [line.partition(" #")[0].strip() for line in found]
        return [line[:-1] if line.count('"') % 2 else line for line in found]


def examples(page: Path) -> Iterator[Example]:
    """Give every fenced block of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start, fence = None, re.compile(r"```(\w*)$")
    for number, line in enumerate(lines):
        found = fence.match(line)
        if found and start is None:
            start, language = number, found[1]
        elif found and start is not None:
            text = "\n".join(lines[start + 1 : number])
            yield Example(page, start + 1, language, text, start > 0 and lines[start - 1] == MARK)
            start = None
    assert start is None, f"{page.name}: the fence in line {start} is never closed"


ALL = [example for page in PAGES for example in examples(page)]
RUN_HERE = [page for page in PAGES if page.name != "recipes.md" and any(each.runs for each in examples(page))]
"""The days of the recipes are run from outside, by `days/`."""
RECIPES = [example for example in ALL if example.page == README and example.commands and not example.runs]
OF_COMMANDS = [
    pytest.param(example, command, id=f"{example} {command}"[:90])
    for example in ALL
    for command in example.commands
]


def prose(page: Path) -> str:
    """Give a page without code, fenced, indented or inline."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]+`|^    .*$", "", text, flags=re.MULTILINE)


def slug(heading: str) -> str:
    """Make the anchor of a heading as GitHub does."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# Examples


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small models named like those of the pages; the encoder tells prompts apart by their letters."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("models")
    encoder = save_encoder(folder / "all-MiniLM-L6-v2")
    weights = load_file(encoder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] *= 10
    save_file(weights, encoder / "model.safetensors", {"format": "pt"})
    return {
        "packaged:efficientnet-lite0": (
            f"timm:local-dir:{save_backbone(folder / 'efficientnet-lite0', classes=('a boat', 'the sea'))}"
        ),
        "packaged:vit-small-saliency": (
            f"timm:local-dir:{save_backbone(folder / 'vit-small-saliency', 'test_vit')}"
        ),
        "timm:resnet50.a1_in1k": f"timm:local-dir:{save_backbone(folder / 'resnet50', seed=1)}",
        "open_clip:ViT-B-32/laion2b_s34b_b79k": f"open_clip:local-dir:{save_clip(folder / 'ViT-B-32')}",
        "packaged:all-MiniLM-L6-v2": f"st:local-dir:{encoder}",
    }


@pytest.fixture(scope="module")
def stand_ins(models: dict[str, str]) -> dict[str, str]:
    """What takes the place of what in an example."""
    cnn, vit, _, _, encoder = models.values()
    return {
        **models,
        " --preset packaged": f" --backbone {cnn} --backbone {vit} --encoder {encoder}",
        'preset="packaged"': f'backbones=["{cnn}", "{vit}"], encoder="{encoder}"',
        "features/packaged-efficientnet-lite0": column_folder("features", cnn),
    }


@pytest.fixture(scope="module")
def prepared(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that examples start in, as it is at first; beside it, one to work in."""
    home = tmp_path_factory.mktemp("docs") / "work"
    for name, count, first in (("images", 2 * len(ascii_lowercase), 0), ("new", 3, 900)):
        (home / name).mkdir(parents=True)
        for number in range(count):
            stem = f"img{number:03d}" if name == "images" else "abc"[number]
            paint(home / name / f"{stem}.png", first + number)
    prompts = {
        f"img{2 * i + j:03d}": " ".join(letter * (4 + j))  # pairs of near-identical prompts
        for i, letter in enumerate(ascii_lowercase)
        for j in range(2)
    }
    write_prompts(home, prompts)
    (home / "external").mkdir()
    for number in range(8):
        paint(home / "external" / f"img{number:03d}.png", 2000 + number)
    write_prompts(home / "external", {f"img{n:03d}": " ".join("abcd"[n % 4] * 6) for n in range(8)})
    (home / "prompts.txt").write_text("\n".join(dict.fromkeys(prompts.values())))
    sample = [f"{name}_{value},0.5" for name in "cab" for value in range(16)]  # as long as a small target
    (home / "sample_submission.csv").write_text("\n".join(["imgId_eId,val", *sample, ""]))
    pages = [example.text for example in ALL if example.language == "json"]
    (home / "space.json").write_text(json.dumps({**json.loads(pages[0]), "max_epochs": [3]}))
    cnn, vit, _, _, encoder = models.values()
    chosen = ("--backbone", cnn, "--backbone", vit, "--encoder", encoder)
    cache = ("--cache", str(home / "cache" / "default"))
    assert main.run(["extract", str(home / "images"), *cache, *chosen, "--part-rows", "16"]) == 0
    shutil.copytree(home, home.with_name("kept"))
    return home


@pytest.fixture
def workplace(prepared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder as it was at first, at the path that the cache remembers, and the current one."""
    shutil.rmtree(prepared)
    shutil.copytree(prepared.with_name("kept"), prepared)
    monkeypatch.chdir(prepared)
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path))
    return prepared


def test_the_notebook_runs(workplace, stand_ins, capsys):
    """Its cells are run here one after the other; they use nothing of Jupyter."""
    names = re.compile("|".join(map(re.escape, sorted(stand_ins, key=len, reverse=True))))
    notebook = json.loads((ROOT / "docs" / "own_head.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    namespace: dict[str, Any] = {}
    for cell in cells:
        text = names.sub(lambda found: stand_ins[found[0]], "".join(cell["source"]))
        exec(compile(text, cell["id"], "exec"), namespace)
    assert namespace["mine"]["n"] == namespace["run"].metrics["n"] == 52
    assert "by hand" in capsys.readouterr().out


@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page, workplace, stand_ins, capsys):
    names = re.compile("|".join(map(re.escape, sorted(stand_ins, key=len, reverse=True))))
    namespace: dict[str, Any] = {}
    for example in examples(page):
        if not example.runs:
            continue
        text = names.sub(lambda found: stand_ins[found[0]], example.text)
        if example.language == "python":
            exec(compile("\n" * example.line + text, str(page), "exec"), namespace)
            continue
        assert example.language == "console", f"{example}: only console and python are run"
        for line in text.splitlines():
            if not line.startswith("$ "):
                continue
            program, *arguments = shlex.split(line[2:], comments=True)
            assert program == "img2prompt-cache", f"{example}: {program} is not run here"
            capsys.readouterr()
            assert main.run(arguments) == 0, f"{example}: {line}\n{capsys.readouterr().err}"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_recipes_of_the_readme_run(recipe, workplace, models, capsys):
    """As written, in a folder without a cache; the small models stand in for those of a preset."""
    shutil.rmtree("cache")
    save_with_prompts(Path("outputs"))
    cnn, vit, _, _, encoder = models.values()
    for command in recipe.commands:
        _, *arguments = shlex.split(command.replace(" --preset packaged", ""))
        if arguments[0] == "extract":
            arguments += ["--backbone", cnn, "--backbone", vit, "--encoder", encoder]
        capsys.readouterr()
        assert main.run(arguments) == 0, f"{recipe}: {command}\n{capsys.readouterr().err}"


def save_with_prompts(folder: Path) -> None:
    """Write pictures that hold their prompts as Stable Diffusion web UI writes them."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    folder.mkdir()
    for number, letter in enumerate(ascii_lowercase):
        settings = f"Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: {number}"
        held = PngInfo()
        held.add_text("parameters", f"{' '.join(letter * 5)}\n{settings}")
        with Image.open(paint(folder / f"{number:05d}.png", 3000 + number)) as image:
            image.save(folder / f"{number:05d}.png", pnginfo=held)


@pytest.mark.parametrize(("example", "command"), OF_COMMANDS)
def test_the_options_of_every_command_exist(example, command):
    _, name, *arguments = shlex.split(command)
    known = typer.main.get_command(main.app).commands  # type: ignore[attr-defined]
    known[name].make_context(name, arguments).close()


def test_options_named_in_the_text_exist():
    commands = typer.main.get_command(main.app)
    known = {"--help", *FOREIGN}
    for command in (commands, *commands.commands.values()):  # type: ignore[attr-defined]
        for parameter in command.params:
            known.update(parameter.opts, parameter.secondary_opts)
    for page in PAGES:
        spans = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
        ours = " ".join(span for span in spans if not span.startswith(("python ", "benchmarks/", "… ")))
        assert {*re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", ours)} <= known, page.name


# Pages


def test_the_readme_is_read_in_two_minutes():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200
    (console, python) = (example for example in ALL if example.page == README and example.runs)
    assert len(f"{console.text}\n{python.text}".splitlines()) <= 15
    assert len(RECIPES) == 4
    assert all(len(recipe.text.splitlines()) <= 6 for recipe in RECIPES)


def test_the_readme_begins_with_a_picture_then_recipes_then_how_to_install_then_results():
    text = README.read_text(encoding="utf-8")
    order = ("](docs/scene.webp)", "## Which of these are you?", "## Install", "## Results on real images")
    places = [text.index(each) for each in order]
    assert places == sorted(places)


@pytest.mark.parametrize("page", [*TEXTS, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), target


def test_every_page_is_linked_from_the_readme():
    linked = {*re.findall(r"\]\(docs/(\w+\.md)", README.read_text(encoding="utf-8"))}
    assert linked == {page.name for page in PAGES[1:]}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_pages_are_in_plain_words(page):
    found = re.findall("|".join(f"(?:{each})" for each in CLIPPED), " ".join(prose(page).split()))
    assert not found


# Figures


def test_every_benchmark_named_is_there():
    for page in PAGES:
        for name in re.findall(r"`(?:python )?(?:benchmarks/)?(\w+)\.py\b", page.read_text(encoding="utf-8")):
            assert (ROOT / "benchmarks" / f"{name}.py").is_file(), f"{page.name}: {name}.py"


def test_the_results_in_the_readme_are_those_of_the_benchmarks():
    names = {"mean (floor)": "mean", "blend of six runs": "blend"}
    features = {"–": "joined", "both backbones": "joined", "EfficientNet-Lite0": "efficientnet-lite0"}
    measured = json.loads((RESULTS / "leakage_gap.json").read_text())["figures"]
    gaps = {(one["data"], one["head"]): f"{one['leakage_gap']:+.3f}".replace("-", "−") for one in measured}
    gaps |= {(one["data"], "mean"): f"0 (gains {one['leakage_gap_floor']:.3f})" for one in measured}
    rows, data = 0, ""
    for line in re.findall(
        r"^\| ((?:[^|]*\| ){4}[^|]* to [^|]*\|[^|]*) \|$", README.read_text(encoding="utf-8"), re.MULTILINE
    ):
        named, head, columns, cosine, inside, gap = (cell.strip(" *") for cell in line.split("|"))
        data = named.partition(":")[0] or data
        key = (names.get(head, head), features[columns])
        run = _ladder(data)["-".join(key)]
        assert cosine == f"{run['cosine']:.3f}", line
        assert inside == " to ".join(f"{end:.3f}" for end in run["ci95"]), line
        assert gap == gaps.get((data, key[0]), "–"), line
        rows += 1
    assert 9 <= rows <= 12


def test_the_tables_of_results_are_those_of_the_benchmarks():
    """The cosine and the interval of each run of the ladder, and the leakage gap of each head."""
    text = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    for data in ("t2i-classic", "horde-styles", "photo-captions"):
        for run in _ladder(data).values():
            low, high = run["ci95"]
            assert f"| {run['cosine']:.4f} | {low:.4f} to {high:.4f} |" in text, run["run"]
    for (data, head, columns), gap in _gaps().items():
        named = "–" if head == "mean" else columns.replace("joined", "both")
        row = next(line for line in text.splitlines() if line.startswith(f"| {data} | {head} | {named} |"))
        assert row.endswith(f" | {gap:+.3f} |"), row


def test_the_figures_of_best_are_those_of_the_benchmark():
    """Every step and head in the tables of the measurements, and the table in the README."""
    text = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    for data, seeds in json.loads((RESULTS / "recipe.json").read_text())["figures"]["sets"].items():
        found = seeds["0"]
        for step in found["steps"]:
            assert f"| {step['step']} | {step['kept']} of 5 | {step['cosine']:.4f} |" in text
        for name, head in found["heads"].items():
            assert f"| {head['cosine']:.4f} | " in text, name
        shown = [found["heads"][name]["cosine"] for name in ("mean", "seed-tuned-resnet", "ridge")]
        row = " | ".join([data, *(f"{each:.3f}" for each in shown)])
        assert f"| {row} | **{found['heads']['best']['cosine']:.3f}** |" in readme


def test_the_figures_of_expected_cosines_are_those_of_the_benchmark():
    text = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    found = json.loads((RESULTS / "expected.json").read_text())["figures"]["kernel"]
    for data, seeds in found.items():
        every = seeds["0"]["models"]["all signals"]
        assert f"| {data} | {every['spearman']:.3f} | {every['calibration_error']:.3f} |" in text


def test_the_figures_of_zero_shot_are_those_of_the_benchmark():
    text = (ROOT / "docs" / "prediction.md").read_text(encoding="utf-8")
    for data, found in json.loads((RESULTS / "zero_shot.json").read_text())["figures"].items():
        cosine, gain = found["cosine"], found["zero-shot minus"]["mean of the bank"]
        low, high = cosine["zero-shot"]["ci95"]
        less, more = gain["ci95"]
        own = found["prompts of the other half"]["cosine"]["zero-shot"]
        assert (
            f"| {data} | {cosine['mean of the bank']['mean']:.3f} | "
            f"{cosine['zero-shot']['mean']:.3f} ({low:.3f} to {high:.3f}) | "
            f"{gain['mean']:+.3f} ({less:.3f} to {more:.3f}) | {cosine['mean of the targets']['mean']:.3f} | "
            f"{own['mean']:.3f} ({own['ci95'][0]:.3f} to {own['ci95'][1]:.3f}) |"
        ) in text, data


def test_the_figures_of_a_student_are_those_of_the_benchmark():
    text = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    for found in json.loads((RESULTS / "student.json").read_text())["figures"]["models"].values():
        ms, (low, high) = found["ms"], found["ci95"]
        assert f"| {ms['p50']:.1f} | {ms['p95']:.1f} | " in text
        assert f" | {found['bytes'] / 1e6:.1f} | {found['cosine']:.4f} ({low:.4f} to {high:.4f}) | " in text


def _ladder(data: str) -> dict[str, Any]:
    found = json.loads((RESULTS / f"ladder-{data}.json").read_text())
    return {run["run"]: run for run in found["figures"]["compare"]["runs"]}


def _gaps() -> dict[tuple[str, str, str], float]:
    found = {}
    for row in json.loads((RESULTS / "heads.json").read_text())["figures"]:
        columns = row["features"].rpartition(":")[2].replace("–", "joined")
        found[row["data"], row["head"], columns] = row["random"]["cosine"] - row["group"]["cosine"]
    return found
