from .demo import write_demo as write_demo
from .picture import render as render
from .words import Scene as Scene
from .words import sample_scenes as sample_scenes
