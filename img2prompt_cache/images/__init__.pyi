from .augment import take_view as take_view
from .decode import decode as decode
from .geometry import Geometry as Geometry
