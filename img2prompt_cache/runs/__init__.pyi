from .folder import load_head as load_head
from .leaderboard import Leaderboard as Leaderboard
from .leaderboard import compare as compare
from .run import Run as Run
from .run import load_run as load_run
