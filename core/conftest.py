"""Only `tests` has tests: those of the templates are for the packages that are written of them."""

collect_ignore = ["src"]
