"""Bookmarks."""
def bookmark(port: int) -> None:
    """Nothing yet."""
