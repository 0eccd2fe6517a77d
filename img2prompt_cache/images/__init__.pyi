from .augment import take_view as take_view
from .geometry import Geometry as Geometry
