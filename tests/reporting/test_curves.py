from __future__ import annotations

from img2prompt_cache.reporting.curves import loss_curves, score_curves, tried_curves

EPOCHS = [
    {"epoch": 0, "train_loss": 1.0, "val_loss": 1.1, "val_cosine": 0.1},
    {"epoch": 1, "train_loss": 0.5, "val_loss": 0.9, "val_cosine": 0.4},
    {"epoch": 2, "train_loss": 0.2, "val_loss": 1.0, "val_cosine": 0.3},
]


def test_losses_are_drawn_by_epoch_and_the_best_one_marked():
    found = loss_curves("mlp-01", EPOCHS)
    assert [curve.name for curve in found.curves] == ["training rows", "rows not seen"]
    assert found.curves[0].y == (1.0, 0.5, 0.2)
    assert found.marks == {"best": 1.0}


def test_scores_of_trained_runs_share_a_chart():
    found = score_curves([("a", EPOCHS), ("b", EPOCHS[:2]), ("c", [{"alpha": 1.0, "cosine": 0.2}])])
    assert [curve.name for curve in found.curves] == ["a", "b"]
    assert found.curves[1].y == (0.1, 0.4)
    assert score_curves([]) is None


def test_one_setting_is_a_curve_on_a_logarithmic_axis_where_it_spans_much():
    history = [{"alpha": alpha, "mse": None, "cosine": 1 / (1 + alpha)} for alpha in (100.0, 0.1, 1.0)]
    (found,) = tried_curves("ridge-01", history)
    assert found.curves[0].x == (0.1, 1.0, 100.0)
    assert found.log_x
    assert found.joined


def test_a_grid_of_two_settings_has_a_curve_for_each_value_of_one():
    history = [{"k": k, "power": p, "cosine": k * p} for k in (5, 10, 20) for p in (0.0, 2.0)]
    (found,) = tried_curves("knn-01", history)
    assert [curve.name for curve in found.curves] == ["power 0", "power 2"]
    assert found.curves[1].y == (10.0, 20.0, 40.0)


def test_settings_that_were_searched_are_points_and_those_that_hardly_vary_are_left_out():
    history = [{"gain 1": g, "alpha": 1 + g / 1e4, "power": -g, "cosine": g} for g in (1.0, 5.0, 3.0)]
    found = tried_curves("kernel-01", history)
    assert [chart.x_label for chart in found] == ["gain 1", "power"]
    assert not any(chart.joined for chart in found)


def test_a_history_of_anything_else_has_no_curves():
    for history in (
        [],
        [{"step": "mlp", "kept": 1}],
        [{"member": 0, "weight": 0.5, "cosine": 0.4}],
        [{"cosine": "x"}],
    ):
        assert tried_curves("x", history) == []
        assert loss_curves("x", history) is None
    assert tried_curves("x", EPOCHS) == []
    assert tried_curves("x", [{"alpha": None, "cosine": 0.1}, {"alpha": "y", "cosine": 0.2}]) == []
