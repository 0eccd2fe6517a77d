from .finished import FinishedStudy as FinishedStudy
from .finished import load_study as load_study
from .importance import influence as influence
from .spaces import find_space as find_space
