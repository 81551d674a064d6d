"""What page and card of a run on motions say."""

from __future__ import annotations

from typing import ClassVar

from prefopt.report.account import Account


class MotionAccount(Account):
    """Runs on motions."""

    samples_word: ClassVar[str] = "motions"


ACCOUNT = MotionAccount()
