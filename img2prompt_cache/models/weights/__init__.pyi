from .hub import choose_preset as choose_preset
from .packaged import list_packaged as list_packaged
from .packaged import packaged_path as packaged_path
