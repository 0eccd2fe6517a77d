from .prompt import positive_prompt as positive_prompt

__all__ = ["positive_prompt"]
