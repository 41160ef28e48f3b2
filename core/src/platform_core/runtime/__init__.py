"""Common base of training and evaluation: the device, checkpoints, and signals."""
