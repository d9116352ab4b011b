"""Operators: one folder each, with an api, a plain reference and the implementations."""
