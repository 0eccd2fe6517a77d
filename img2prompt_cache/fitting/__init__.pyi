from .config import FitConfig as FitConfig
from .scores import score as score
from .single import fit_head as fit_head
