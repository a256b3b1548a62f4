"""Foreign files under a coverage-guided fuzzer: see `campaign`."""

from benchmarks.fuzz._campaign import campaign as campaign
from benchmarks.fuzz._readers import READERS as READERS
