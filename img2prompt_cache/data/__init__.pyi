from .columns import choose_features as choose_features
from .columns import choose_target as choose_target
from .dataset import Dataset as Dataset
from .dataset import load_dataset as load_dataset
from .groups import prompt_groups as prompt_groups
from .splits import Split as Split
from .strategies import make_split as make_split
