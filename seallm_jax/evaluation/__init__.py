"""Bits per byte, multiple choice, preference accuracy, report."""
