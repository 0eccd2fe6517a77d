from .address import is_url as is_url
from .root import RemoteRoot as RemoteRoot
from .root import told_as as told_as
