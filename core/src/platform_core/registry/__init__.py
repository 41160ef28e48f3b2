"""Registry: the plugins that are installed, and the parts that they bring."""
