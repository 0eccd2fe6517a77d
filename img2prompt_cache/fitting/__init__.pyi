from .config import FitConfig as FitConfig
from .single import fit_head as fit_head
