from .importance import influence as influence
from .spaces import find_space as find_space
