"""What a run can do to hosts and take back; a release and a copied file are such."""

from __future__ import annotations

from typing import Protocol

from deployctl.model import Outcome


class Change(Protocol):
    """What changes hosts, and knows the way back."""

    def perform(self) -> bool:
        """Return whether it is done everywhere; if not, every host was put back as far as it could be."""

    def put_back(self) -> None:
        """Put every host back that may have changed."""

    def came_to(self) -> tuple[Outcome, str]:
        """Once hosts were put back: what it came to, and what is to be said of it."""
