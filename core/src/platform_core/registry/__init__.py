"""Registry of the installed plugins and the parts that they provide."""
