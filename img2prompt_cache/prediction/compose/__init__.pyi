from .composer import Composer as Composer
from .draft import Draft as Draft
from .mining import Mined as Mined
from .mining import mine as mine
from .parts import Parts as Parts
from .parts import split_prompt as split_prompt
