"""Tests copy this file beside the module that it imports."""

collect_ignore = ["own.py"]
