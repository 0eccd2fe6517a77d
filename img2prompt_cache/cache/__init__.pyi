from .manifest import Column as Column
from .manifest import Manifest as Manifest
from .reader import Cache as Cache
from .writer import commit as commit
from .writer import writing as writing
