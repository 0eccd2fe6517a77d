from .formats import WRITERS as WRITERS
from .formats import open_writer as open_writer
from .formats import writer_for as writer_for
