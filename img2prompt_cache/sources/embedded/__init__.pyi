from .prompts import Found as Found
from .prompts import find_prompt as find_prompt
from .prompts import read_prompt as read_prompt
from .texts import read_texts as read_texts
