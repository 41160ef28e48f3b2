"""What training and evaluation both stand on: the device, and weights on disk."""
