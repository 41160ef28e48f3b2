"""Sweeps: many runs that differ in a few options, checked together and run like ordinary runs.

    file (YAML) -> plan (checked trials) -> directory (the record) -> launcher -> attempt

The package imports no heavy libraries; every trial is a process of its own.
"""
