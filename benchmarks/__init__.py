"""Comparisons with other libraries and between forms of a program: `python -m benchmarks`.

They run from a clone of the repository and are no part of the installed package. What times the
library itself is in `jaxrobust bench`.
"""
