from .entry import Entry as Entry
from .entry import run_entry as run_entry
from .track import TRACKERS as TRACKERS
from .track import require_tracker as require_tracker
from .track import track_entries as track_entries
from .track import track_runs as track_runs
