"""The sources that search the assortment by the users' vectors; one pass serves them all."""

from __future__ import annotations

import numpy as np

from allmrec.scoring.assortment import AskedUsers, Assortment


class BestByAllSignals:
    """The best of all items, for users whom the CF model knows."""

    name = "cf"
    quota = None

    def __init__(self, assortment: Assortment) -> None:
        pass

    def candidates(self, users: AskedUsers, wanted: int) -> np.ndarray:
        """Return item_idx [B, wanted] int64, 0 where there are no more."""
        return _of_users(users.vectors.has_cf, users.best.of_all)


class BestWithoutCF:
    """The best of all items, for users of whose history the CF model knows no item."""

    name = "text"
    quota = None

    def __init__(self, assortment: Assortment) -> None:
        pass

    def candidates(self, users: AskedUsers, wanted: int) -> np.ndarray:
        """Return item_idx [B, wanted] int64, 0 where there are no more."""
        return _of_users(users.vectors.has_text & ~users.vectors.has_cf, users.best.of_all)


class BestRare:
    """The best of the rare items without the CF model, for users whom the CF model knows.

    The CF model judges items with few interactions badly. The others have no list by the CF model.
    """

    name = "text"

    def __init__(self, assortment: Assortment) -> None:
        self.quota = assortment.settings.text_quota

    def candidates(self, users: AskedUsers, wanted: int) -> np.ndarray:
        """Return item_idx [B, wanted] int64, 0 where there are no more."""
        return _of_users(users.vectors.has_cf, users.best.of_rare)


def _of_users(is_asked_B: np.ndarray, items_BN: np.ndarray) -> np.ndarray:
    """Return the items of some users, and zeros for the others."""
    return np.where(is_asked_B[:, None], items_BN, 0)
