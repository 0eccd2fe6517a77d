"""Conversion of published weights to safetensors with timm's names."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_CLASSIFIER = "classifier."
DINOV2_PIXELS = 224
"""The side of the images that the packaged DINOv2 takes: that of its ONNX graph."""


def convert(data: bytes, architecture: str, path: Path, classifier: Path) -> None:
    """Write the weights of a published file as safetensors that fit timm's model without its classifier.

    Parameters
    ----------
    data : bytes
        A PyTorch state dict of an EfficientNet-Lite, or an ONNX graph of a DINOv2 ViT.
    architecture : str
        timm's name of the model.
    path : pathlib.Path
        The file to write.
    classifier : pathlib.Path
        The file to write the classifier to, if there is one: `weight` (classes, dim) and `bias` (classes,).

    Raises
    ------
    Img2PromptError
        If the weights do not fit the architecture.
    """
    from safetensors.torch import save_file

    state = dinov2_state(data) if architecture.endswith("dinov2") else efficientnet_state(data, architecture)
    last = {
        name.removeprefix(_CLASSIFIER): state.pop(name) for name in [*state] if name.startswith(_CLASSIFIER)
    }
    for tensors, file in ((state, path), (last, classifier)):
        if tensors:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def efficientnet_state(data: bytes, architecture: str) -> dict[str, Tensor]:
    """Rename the state dict of a TensorFlow-ported EfficientNet-Lite to timm's names, classifier included.

    Both libraries build the layers in the same order, so names map in order; the kind of each tensor
    (``weight``, ``running_mean``, …) and its shape are checked one by one.

    Raises
    ------
    Img2PromptError
        If the bytes are not a state dict, or a tensor is missing, left over, or of another kind or shape.
    """
    import timm
    import torch

    try:
        theirs = dict(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except Exception as error:  # hostile bytes can fail in any way
        raise Img2PromptError(f"the weights of {architecture} cannot be read as a state dict") from error
    ours = timm.create_model(architecture, pretrained=False).state_dict()
    pairs = list(zip(theirs.items(), ours.items(), strict=False))
    same = all(
        old.rpartition(".")[2] == new.rpartition(".")[2] and tensor.shape == like.shape
        for (old, tensor), (new, like) in pairs
    )
    if len(theirs) != len(ours) or not same:
        raise Img2PromptError(
            f"the weights do not fit {architecture}: other layers, or another order of layers"
        )
    return {new: tensor for (_, tensor), (new, _) in pairs}


def dinov2_state(data: bytes) -> dict[str, Tensor]:
    """Read the weights of an exported DINOv2 graph, with the names of timm's ``vit_*_patch14_dinov2``.

    Named initialisers map by name. The exporter renamed the matrices of linear layers, so these are found
    by the node that multiplies with them, and transposed. The position table is resampled as the graph
    itself does it (bicubic, half-pixel, no antialiasing), so that features are those of the published model.

    Raises
    ------
    Img2PromptError
        If the bytes are not an ONNX graph, or an initialiser is missing.
    """
    import onnx
    import torch

    try:
        graph = onnx.load_model_from_string(data).graph
    except Exception as error:  # hostile bytes can fail in any way
        raise Img2PromptError("the weights cannot be read as an ONNX graph") from error
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    operands = {node.name: arrays[name] for node in graph.node for name in node.input if name in arrays}

    def named(name: str) -> Tensor:
        return torch.from_numpy(arrays[f"backbone.{name}"].copy())

    def matrix(layer: int, name: str) -> Tensor:
        return torch.from_numpy(operands[f"/backbone/encoder/layer.{layer}/{name}/MatMul"].T.copy())

    try:
        patch = named("embeddings.patch_embeddings.projection.weight")
        state = {
            "cls_token": named("embeddings.cls_token"),
            "pos_embed": _position_table(operands, DINOV2_PIXELS // patch.shape[-1]),
            "patch_embed.proj.weight": patch,
            "patch_embed.proj.bias": named("embeddings.patch_embeddings.projection.bias"),
            "norm.weight": named("layernorm.weight"),
            "norm.bias": named("layernorm.bias"),
        }
        for layer in range(sum(name.endswith("/fc1/MatMul") for name in operands)):
            theirs, ours = f"encoder.layer.{layer}", f"blocks.{layer}"
            qkv = ("query", "key", "value")
            state |= {
                f"{ours}.attn.qkv.weight": torch.cat(
                    [matrix(layer, f"attention/attention/{x}") for x in qkv]
                ),
                f"{ours}.attn.qkv.bias": torch.cat(
                    [named(f"{theirs}.attention.attention.{x}.bias") for x in qkv]
                ),
                f"{ours}.attn.proj.weight": matrix(layer, "attention/output/dense"),
                f"{ours}.attn.proj.bias": named(f"{theirs}.attention.output.dense.bias"),
            }
            for number in (1, 2):
                state |= {
                    f"{ours}.norm{number}.weight": named(f"{theirs}.norm{number}.weight"),
                    f"{ours}.norm{number}.bias": named(f"{theirs}.norm{number}.bias"),
                    f"{ours}.mlp.fc{number}.weight": matrix(layer, f"mlp/fc{number}"),
                    f"{ours}.mlp.fc{number}.bias": named(f"{theirs}.mlp.fc{number}.bias"),
                    f"{ours}.ls{number}.gamma": named(f"{theirs}.layer_scale{number}.lambda1"),
                }
    except KeyError as error:
        raise Img2PromptError(f"the graph is not an exported DINOv2: it has no {error}") from error
    return state


def _position_table(operands: Mapping[str, np.ndarray], side: int) -> Tensor:
    """Resample the table to a grid of `side` × `side` patches: float32, shape (1, 1 + side², width)."""
    import torch

    first, grid = (
        torch.from_numpy(operands[f"/backbone/embeddings/{node}"].copy())
        for node in ("Concat_6", "Reshape_1")
    )
    edge = math.isqrt(grid.shape[1])
    grid = grid.reshape(1, edge, edge, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1)
