from .execute import run_pass as run_pass
from .repair import Repaired as Repaired
from .report import Plan as Plan
from .report import Report as Report
from .request import ExtractConfig as ExtractConfig
from .shards import ShardReport as ShardReport
from .shards import extract_shard as extract_shard
from .shards import finish as finish
