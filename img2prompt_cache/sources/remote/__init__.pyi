from .address import is_url as is_url
from .listings import Listed as Listed
from .listings import keep_listing as keep_listing
from .root import RemoteRoot as RemoteRoot
from .root import told_as as told_as
