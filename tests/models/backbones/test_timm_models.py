"""timm backbones against timm's own transform and forward, on the same image file."""

import json
import pickle

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.images.decode import decode
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.recorded import load_recorded_backbone
from img2prompt_cache.models.weights.places import Places, looking_in
from kit import save_backbone


def scatter(model, seed):
    """Give every tensor seeded values, so that no layer is an identity and no statistic is trivial."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.02)
    return model.eval()


@pytest.fixture
def photo(tmp_path):
    """A file of smooth colours that is not square, and one more."""
    files = []
    for seed in (0, 1):
        noise = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
        path = tmp_path / f"{seed}.png"
        Image.fromarray(noise).resize((333, 271), Image.Resampling.BICUBIC).save(path)
        files.append(path)
    return files


def features(backbone, files):
    crops = [backbone.geometry.apply(decode(path.read_bytes())) for path in files]
    return backbone.encode(torch.from_numpy(np.stack(crops)))


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("resnet50", "a1_in1k"),
        ("vit_base_patch16_224", "augreg2_in21k_ft_in1k"),
        ("mobilenetv3_small_050", None),
    ],
)
def test_parity_with_timm(name, config, photo, tmp_path):
    torch.manual_seed(0)
    oracle = scatter(timm.create_model(name, pretrained_cfg=config, num_classes=0), seed=2)
    timm.models.save_for_hf(oracle, tmp_path / "model", safe_serialization=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(oracle), is_training=False)
    with torch.inference_mode():
        expected = oracle(torch.stack([transform(Image.open(path)) for path in photo])).numpy()
    found = features(load_backbone(f"timm:local-dir:{tmp_path / 'model'}"), photo)
    assert found.shape == expected.shape
    assert cosines(found, expected).min() >= 0.9999
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected[0] - expected[1]).max() > 1e-2 * np.abs(expected).max()


def test_settings_in_the_config_are_part_of_the_architecture(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", global_pool="avg", img_size=64, depth=1)
    arguments = {"global_pool": "avg", "img_size": [64, 64], "depth": 1}
    timm.models.save_for_hf(model, tmp_path, model_args=arguments, safe_serialization=True)
    backbone = load_backbone(f"timm:local-dir:{tmp_path}")
    assert json.loads(backbone.identity["architecture"].partition(" ")[2]) == arguments
    assert backbone.geometry.crop == (64, 64)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    model = timm.create_model("resnet10t")
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    (tmp_path / "model.safetensors").unlink()
    for save in (
        lambda path: torch.save({"a": Evil()}, path),
        lambda path: path.write_bytes(pickle.dumps(Evil())),
    ):
        save(tmp_path / "pytorch_model.bin")
        with pytest.raises(Img2PromptError, match="cannot load these weights"):
            load_backbone(f"timm:local-dir:{tmp_path}")
    assert not (tmp_path / "executed").exists()


def test_a_plain_state_dict_is_read(tmp_path):
    model = scatter(timm.create_model("resnet10t"), seed=3)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    spec = f"timm:local-dir:{tmp_path}"
    safe = load_backbone(spec).identity
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert load_backbone(spec).identity == safe


@pytest.mark.parametrize("damage", ["truncated", "other model", "no weights"])
def test_weights_that_do_not_fit_are_refused(damage, tmp_path):
    timm.models.save_for_hf(timm.create_model("resnet10t"), tmp_path, safe_serialization=True)
    weights = tmp_path / "model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "other model":
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "resnet14t"}))
    else:
        weights.unlink()
    with pytest.raises(Img2PromptError, match="cannot load these weights") as caught:
        load_backbone(f"timm:local-dir:{tmp_path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet50.a1_in2k", r"resnet50\.a1_in1k"),
        ("ResNet50.a1_in1k ", "resnet50.a1_in1k"),
        ("zzzzzz", "unknown timm model"),
        ("/models/resnet", "local-dir"),
        ("./resnet50", "local-dir"),
        ("timm/resnet50.a1_in1k", "hf-hub:"),
        ("hub:resnet50", "local-dir"),
        ("local-dir:", "local-dir:PATH"),
        ("local-dir:/nonexistent/folder", r"config\.json"),
        ("hf-hub:too/many/parts", "not a repository"),
        ("gcvit_tiny.in1k@main", "no revisions"),
    ],
)
def test_names_that_are_not_there(name, said):
    with pytest.raises(UsageError, match=said):
        load_backbone(f"timm:{name}")


@pytest.mark.parametrize("text", ["not json", "[]", "{}", '{"architecture": "resnetx"}'])
def test_a_config_that_is_not_timms_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match="timm"):
        load_backbone(f"timm:local-dir:{tmp_path}")


def test_a_folder_is_never_taken_for_a_name(tmp_path, monkeypatch):
    (tmp_path / "resnet50").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="local-dir"):
        load_backbone("timm:resnet50")


def test_weights_that_timm_keeps_off_the_hub_are_asked_for_there(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies of its first use
    with pytest.raises(Img2PromptError, match=r'https://\S+gcvit_tiny.*refused.*`preset="packaged"`'):
        load_backbone("timm:gcvit_tiny.in1k")


def test_weights_of_a_hub_model_are_taken_from_a_folder(tmp_path):
    spec = "timm:test_resnet.r160_in1k"
    folder = save_backbone(tmp_path / "deep" / "mine", classes=[str(number) for number in range(1000)])
    found = load_backbone(spec, folder=folder)
    assert found.identity["weights"] == load_backbone(f"timm:local-dir:{folder}").identity["weights"]
    assert found.identity["architecture"] == "test_resnet"
    (folder / "config.json").unlink()  # the configuration is timm's own
    again = load_backbone(spec, folder=folder)
    assert (again.fingerprint, again.folder) == (found.fingerprint, folder)
    column = UsedColumn(spec, found.dim, found.fingerprint, "0" * 40)
    with looking_in(Places((tmp_path,))):
        assert load_recorded_backbone(column, device="cpu").folder == folder
    with pytest.raises(UsageError, match=r"has no model.safetensors or pytorch_model.bin"):
        load_backbone(spec, folder=tmp_path)
