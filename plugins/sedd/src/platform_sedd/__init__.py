"""SEDD: discrete diffusion by score entropy, absorbing or uniform."""
