"""The campaign of faults: kills, damage and difficult surroundings on the real command line."""

from benchmarks.faults._campaign import campaign as campaign
from benchmarks.faults._verdict import Row as Row
