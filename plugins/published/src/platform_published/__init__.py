"""Published checkpoints: into runs and out of them."""
