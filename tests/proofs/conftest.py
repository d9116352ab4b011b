"""Options of `named_models.py`."""

from __future__ import annotations


def pytest_addoption(parser):
    group = parser.getgroup("named models")
    group.addoption("--named-models", default="all", metavar="all|NAME,...", help="what to compile")
    group.addoption("--update-golden", action="store_true", help="write what was found instead of comparing it")
