"""The checks by number."""

from __future__ import annotations

from img2prompt_cache.reporting.checks import data, runs
from img2prompt_cache.reporting.checks.base import Check

CHECKS = (
    Check("R01", "Images that could not be read", data.failed_images),
    Check("R02", "Images that changed or are gone", data.changed_images),
    Check("R03", "Runs on rows that have changed since", data.changed_rows, of_runs=True),
    Check("R04", "Rows without a prompt", data.missing_prompts),
    Check("R05", "Prompts longer than the encoder reads", data.cut_prompts),
    Check("R06", "Repeated prompts", data.repeated_prompts),
    Check("R07", "Prompts in other scripts", data.foreign_scripts),
    Check("R08", "Prompts of several programs", data.mixed_programs),
    Check("R09", "Damaged parts", data.damaged_parts),
    Check("R10", "Incomplete columns", data.incomplete_columns),
    Check("R11", "Features that are NaN or hardly vary", data.features),
    Check("R12", "Columns of lower precision", data.precision),
    Check("R13", "Runs below the floor", runs.below_floor, of_runs=True),
    Check("R14", "Few groups held out", runs.few_groups, of_runs=True),
    Check("R15", "One large group", runs.large_group, of_runs=True),
    Check("R16", "Leaking splits", runs.leaking_split, of_runs=True),
    Check("R17", "A best run that may not be the best", runs.unsure_best, of_runs=True),
    Check("R18", "A simpler head that is as good", runs.simpler_head, of_runs=True),
    Check("R19", "Settings at the edge of the search", runs.edge_of_search, of_runs=True),
    Check("R20", "Heads that know their training rows better", runs.overfitted, of_runs=True),
    Check("R21", "Training that ended too early", runs.unfinished_training, of_runs=True),
    Check("R22", "Folds with very different scores", runs.uneven_folds, of_runs=True),
    Check("R23", "Members of a blend without weight", runs.idle_members, of_runs=True),
    Check("R24", "Runs that are left out", runs.unreadable_runs, of_runs=True),
    Check("R25", "Expected cosines that say little", runs.expected_cosines, of_runs=True),
)
"""A number is never given to another check."""
