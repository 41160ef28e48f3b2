"""Aim: the tracker that shows runs while they train, and its dashboard."""
