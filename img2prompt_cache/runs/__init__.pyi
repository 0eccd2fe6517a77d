from .board import Leaderboard as Leaderboard
from .folder import load_head as load_head
from .leaderboard import compare as compare
from .run import Run as Run
from .run import load_run as load_run
