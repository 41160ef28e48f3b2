"""Orders of unmasking: which masks are replaced first, how many at once, and the likelihood."""
