"""Sweeps: many runs that differ in a few options, checked together and run as ordinary ones.

    file (what is asked) -> plan (checked trials) -> directory (the record) -> launcher -> attempt

Imports nothing of weight; every trial is a process of its own.
"""
