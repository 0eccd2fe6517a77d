from .entry import Entry as Entry
from .entry import run_entry as run_entry
from .track import TRACKERS as TRACKERS
from .track import Tracker as Tracker
from .track import require_tracker as require_tracker
