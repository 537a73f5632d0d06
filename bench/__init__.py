"""Measurements: each module prints a figure that the documentation states."""
