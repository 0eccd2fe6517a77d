from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPRegressor

from img2prompt_cache.heads.neural import network as module
from img2prompt_cache.heads.neural.network import Dropout, make_network, outputs, predict, start_at

KINDS = [
    {"hidden": ()},
    {"hidden": (8, 6)},
    {"hidden": (8, 6), "norm": "batch"},
    {"hidden": (8,), "norm": "batch", "residual": True},
    {"hidden": (), "residual": True},
]


def inputs(n=10, p=5):
    return torch.as_tensor(np.random.default_rng(0).normal(size=(n, p)).astype(np.float32))


def test_it_is_scikit_learns_perceptron():
    x = inputs().numpy()
    y = np.random.default_rng(1).normal(size=(len(x), 3))
    oracle = MLPRegressor(hidden_layer_sizes=(8, 6), max_iter=1, solver="lbfgs", random_state=0)
    with pytest.warns(Warning, match="lbfgs failed to converge"):
        oracle.fit(x, y)
    network = make_network(5, (8, 6), 3)
    with torch.no_grad():
        linear = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
        for layer, weights, bias in zip(linear, oracle.coefs_, oracle.intercepts_, strict=True):
            layer.weight.copy_(torch.as_tensor(weights.T))
            layer.bias.copy_(torch.as_tensor(bias))
    np.testing.assert_allclose(outputs(network, inputs()), oracle.predict(x), atol=1e-5)


def test_batch_norm_and_the_straight_way_are_what_they_say():
    network = make_network(5, (8,), 3, norm="batch", residual=True)
    x = inputs(40)
    network.train()
    network(x)
    network.eval()
    state = {key: value.double() for key, value in network.state_dict().items()}
    hidden = x.double() @ state["deep.1.weight"].T + state["deep.1.bias"]
    # Torch's running statistics after one batch, of momentum 0.1: variance by n − 1.
    mean, variance = 0.1 * hidden.mean(dim=0), 0.9 + 0.1 * hidden.var(dim=0)
    normal = (hidden - mean) / (variance + 1e-5).sqrt()
    wanted = normal.clamp(min=0) @ state["deep.5.weight"].T + state["deep.5.bias"]
    wanted = wanted + x.double() @ state["straight.1.weight"].T / 5**0.5
    np.testing.assert_allclose(network(x).detach(), wanted.detach(), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_at_the_mean_in_training_too(kind):
    network = make_network(5, **{"t": 3, "dropout": 0.5, **kind})
    mean = torch.tensor([1.0, -2.0, 3.0])
    start_at(network, mean)
    for mode in (True, False):
        network.train(mode)
        assert torch.equal(network(inputs()), mean.expand(10, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_in_pieces_are_the_whole(kind, monkeypatch):
    network = make_network(5, **{"t": 3, "dropout": 0.5, **kind})
    mean, scale = np.arange(5, dtype=np.float32), np.arange(1, 6, dtype=np.float32)
    X = inputs(30).numpy() * scale + mean
    whole = predict(network, mean, scale, X)
    monkeypatch.setattr(module, "ROWS", 7)
    np.testing.assert_allclose(predict(network, mean, scale, X), whole, atol=1e-5)
    assert not network.training
    assert predict(network, mean, scale, X[:0]).shape == (0, 3)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_dropout_drops_that_share_of_values_each_by_itself(share):
    torch.manual_seed(0)
    x = torch.ones(1000, 403)
    found = Dropout(share)(x)
    assert found.unique().tolist() == pytest.approx([0.0, 1 / (1 - share)], rel=2**-16 / (1 - share))
    dropped = (found == 0).double()
    assert dropped.mean() == pytest.approx(share, abs=5 * (share * (1 - share) / x.numel()) ** 0.5)
    # Four values come from one draw: neither do some of the four differ, nor do they know of each other.
    flat = dropped.reshape(-1, 4)
    np.testing.assert_allclose(flat.mean(dim=0), share, atol=5 * (share * (1 - share) / len(flat)) ** 0.5)
    near = np.corrcoef(np.column_stack([flat[:-1], flat[1:]]).T)
    assert np.abs(near - np.eye(8)).max() < 5 / len(flat) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (0, 4)])
def test_dropout_keeps_the_rest_scaled_and_its_gradient(shape, dtype):
    torch.manual_seed(0)
    x = (torch.rand(shape) + 1).to(dtype).requires_grad_()
    found = Dropout(0.25)(x)
    found.sum().backward()
    kept = found != 0
    assert found.dtype == dtype
    assert torch.equal(found[kept], (x[kept].float() * (1 / 0.75)).to(dtype))
    assert torch.equal(x.grad, kept * torch.tensor(1 / 0.75, dtype=dtype))


def test_dropout_is_drawn_anew_and_repeats_with_the_seed():
    x, layer = torch.ones(20, 30), Dropout(0.5)
    torch.manual_seed(0)
    first, second = layer(x), layer(x)
    torch.manual_seed(0)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)


def test_dropout_leaves_values_alone_in_prediction_and_where_the_share_is_none():
    x, state = torch.ones(20, 30), torch.get_rng_state()
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_of_nearly_all_is_finite():
    assert torch.isfinite(Dropout(1 - 1e-9)(torch.ones(400, 400))).all()
