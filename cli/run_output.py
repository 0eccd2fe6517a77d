"""What the commands print about a run that was fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from img2prompt_cache.tables import counted

from . import console

if TYPE_CHECKING:
    from img2prompt_cache.runs.run import Run


def run_values(run: Run) -> dict[str, Any]:
    """Give a run as JSON values."""
    return {
        "run": str(run.folder),
        "head": run.head,
        "features": [use.spec for use in run.features],
        "metrics": run.metrics,
        "seconds": round(run.seconds, 3),
        "expected": run.expected,
    }


def members_values(run: Run) -> dict[str, Any]:
    """Give the members of a blend, or the steps of the best head, as JSON values; nothing for other runs."""
    members = _members(run)
    if run.head == "best":
        return {"steps": list(run.history)}
    shown = ("run", "weight", "cosine", "without")
    told = [
        {name: each[name] for name in (*shown, *(("outside", "doubts") if each["outside"] else ()))}
        for each in members
    ]
    return {"members": told} if members else {}


def run_line(run: Run) -> str:
    """Describe a run in one line."""
    metrics, split = run.metrics, run.split
    ranks = ((1, metrics["r@1"]), (5, metrics["r@5"]), (10, metrics["r@10"]))
    retrieved = ", ".join(f"R@{k} {share or 0:.3f}" for k, share in ranks)
    if "r@5_corrected" in metrics:
        shares = metrics["r@1_corrected"], metrics["r@5_corrected"], metrics["r@10_corrected"]
        retrieved += f" ({', '.join(f'{share:.3f}' for share in shares)} corrected for hubs)"
    retrieved += f" of {counted(round(metrics['bank'] or 0), 'prompt', 'prompts')}"
    rows = counted(metrics["n"], "held-out row", "held-out rows")
    if run.fold_metrics:
        rows = f"{counted(metrics['n'], 'row', 'rows')} in {split['folds']} folds"
    more = ""
    if metrics["leakage_gap"] is not None:
        more = f"; leakage gap {metrics['leakage_gap']:+.4f}{_between(metrics['leakage_gap_ci95'])}"
        more += f" beyond the floor's {metrics['leakage_gap_floor']:+.4f}"
    several = ""
    if "cosine_mean_prompt" in metrics:
        several = f"on the first prompt, {metrics['cosine_mean_prompt']:.4f}"
        several = f" {several}{_between(metrics['ci95_mean_prompt'])} on the mean of all prompts"
    return (
        f"{run.folder}: cosine {metrics['cosine']:.4f}{_between(metrics['ci95'])}{several}, "
        f"floor {metrics['floor']:.4f}, mse {metrics['mse']:.6f}, {retrieved} on {rows} "
        f"({split['strategy']} split{more}); {run.seconds:.1f} s"
    )


def caution_lines(run: Run) -> list[str]:
    """Say why the score of a run is less sure than it looks."""
    metrics = run.metrics
    lines = few_groups(metrics["groups"], metrics["effective_groups"])
    outside = [each for each in _members(run) if each["outside"]]
    for each in outside:
        lines.append(
            f"  {each['run']}: predictions of another program, taken at their word: that those for held-out "
            "rows are by models that saw neither the row nor one of its group"
        )
        lines += [f"  {each['run']}: {doubt}" for doubt in each["doubts"]]
    if metrics.get("nested") == 0 and outside:
        lines.append(
            "  predictions of another program cannot be made again on inner folds: the weights that score a "
            "fold come from predictions by members that had seen it, so the score is a little too high"
        )
    elif metrics.get("nested") == 0:
        lines.append(
            "  a member takes too long to be fitted on inner folds, too: the weights that score a fold come "
            "from predictions by members that had seen it, so the score is a little too high"
        )
    return lines


def few_groups(groups: int | None, effective: float | None) -> list[str]:
    """Say that intervals rest on too few groups, if they do."""
    from img2prompt_cache.numerics.bootstrap import FEW_GROUPS

    if groups is None or effective is None or effective >= FEW_GROUPS:
        return []
    return [
        f"  few groups: the held-out rows are {counted(groups, 'group', 'groups')} of near-identical ones, "
        "as good as "
        f"{effective:.1f} of equal size; with fewer than {FEW_GROUPS} the intervals are too narrow"
    ]


def expected_lines(run: Run) -> list[str]:
    """Say what a run knows of how good its predictions are."""
    told = run.expected
    if told is None:
        return []
    if told["calibration_error"] is None:
        return [
            f"  too few held-out rows ({told['n']}) or groups to tell good predictions from bad ones: the "
            "expected cosine of each is the mean"
        ]
    order = told["spearman"]
    said = "the same for all" if order is None else f"rank correlation {order:.3f} with the true one"
    lines = [f"  expected cosine of a prediction: {said}, calibration error {told['calibration_error']:.3f}"]
    return [*lines, f"  {run.doubts}"] if run.doubts else lines


def _between(inside: list[float] | None) -> str:
    return f" ({inside[0]:.4f} to {inside[1]:.4f})" if inside else ""


def source_lines(run: Run) -> list[str]:
    """Describe what a run is made of: the members of a blend, a student's teacher, the best head's steps."""
    if run.head == "best":
        steps = [
            [step["step"], step.get("cosine"), step.get("gain"), step.get("standard error"), _verdict(step)]
            for step in run.history
        ]
        return [console.table(["step", "cosine", "gain", "standard error", ""], steps)]
    if "plain" in run.metrics:
        return [
            f"  taught by {run.settings['teacher']}, cosine {run.metrics['teacher']:.4f} when fitted on "
            f"the same rows; the same mlp without a teacher: {run.metrics['plain']:.4f}"
        ]
    rows = [[each["run"], each["weight"], each["cosine"], each["without"]] for each in _members(run)]
    if not rows:
        return []
    return [console.table(["member", "weight", "cosine", "blend without it"], rows), *_beyond_best(run)]


def _beyond_best(run: Run) -> list[str]:
    """Say whether a blend is better than its best member; nothing of an older run."""
    metrics = run.metrics
    if "beyond_best" not in metrics:
        return []
    inside = metrics["beyond_best_ci95"]
    best = max(_members(run), key=lambda member: member["cosine"])["run"]
    gain = f"{metrics['beyond_best']:+.4f}{_between(inside)}"
    if inside is not None and inside[0] > 0:
        return [f"  better than its best member, {best}, by {gain}"]
    return [f"  no better than its best member, {best}, as far as these rows can tell: {gain}"]


def _verdict(step: dict[str, Any]) -> str:
    if step.get("cosine") is None:
        return "not tried for lack of time"
    return "kept" if step["kept"] else "not kept"


def _members(run: Run) -> list[dict[str, Any]]:
    if run.head != "blend":
        return []
    pairs = zip(run.settings["members"], run.settings["weights"], strict=True)
    return [
        {
            "run": member["run"],
            "weight": weight,
            "cosine": member["cosine"],
            "without": member["without"],
            "outside": member["head"] == "outside",
            "doubts": member.get("doubts", []),
        }
        for member, weight in pairs
        if "run" in member
    ]
