"""Scenes we draw ourselves: pictures with honest prompts for the demo, made without a network."""

from __future__ import annotations

from img2prompt_cache.images.scenes.demo import write_demo
from img2prompt_cache.images.scenes.picture import render
from img2prompt_cache.images.scenes.words import Scene, sample_scenes

__all__ = ["Scene", "render", "sample_scenes", "write_demo"]
