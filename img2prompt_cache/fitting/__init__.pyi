from .config import FitConfig as FitConfig
from .outside import OutsideMember as OutsideMember
from .scores import score as score
from .single import fit_head as fit_head
