"""Shared by the property tests."""

from __future__ import annotations

from hypothesis import settings

# No deadline: other work on the machine is no fault of ours. The same examples every time, so that
# a test that passed does not fail tomorrow; to look for more, derandomize=False and more examples.
settings.register_profile("evonas", deadline=None, derandomize=True, max_examples=200)
settings.load_profile("evonas")
