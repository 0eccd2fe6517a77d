from .blend import fit_blend as fit_blend
from .distil import fit_distil as fit_distil
