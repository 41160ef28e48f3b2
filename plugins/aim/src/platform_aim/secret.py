"""The secret of a dashboard: what its printed address says, and what its visitors' cookie is."""

import secrets
from dataclasses import dataclass, field

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Secret:
    """Who knows it may use the dashboard on this port.

    Args:
        port: that the dashboard listens at; part of the cookie's name, since browsers send the
            cookies of one port to all others.
        value: in letters that addresses and cookies have.
    """

    port: int
    value: str = field(repr=False)

    @classmethod
    def new(cls, port: int) -> "Secret":
        """One that nobody can guess: 256 bits."""
        return cls(port, secrets.token_urlsafe(32))

    @property
    def address(self) -> str:
        """What a person opens."""
        return f"http://{HOST}:{self.port}/?key={self.value}"

    @property
    def cookie_name(self) -> str:
        """What the cookie is called."""
        return f"platform_dashboard_{self.port}"

    @property
    def cookie(self) -> dict[str, str]:
        """The header of a request that is let in."""
        return {"Cookie": f"{self.cookie_name}={self.value}"}

    def is_(self, given: str) -> bool:
        """Whether this is the secret; takes as long whatever is given."""
        return secrets.compare_digest(given.encode(), self.value.encode())
