"""Packages that may be missing, because the wheel alone installs no runtime."""

from __future__ import annotations

from importlib.util import find_spec

from allmrec.errors import SetupError

RUNTIME = {
    "pyspark": "pyspark",
    "delta": "delta-spark",
    "torch": "torch",
    "numpy": "numpy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
}
"""The packages of the extra `runtime`: name of the import → name of the package."""


def missing_package(error: ModuleNotFoundError) -> SetupError | None:
    """Return the error for a package that is not installed. None for our modules."""
    name = (error.name or "").partition(".")[0]
    if name in ("", "allmrec"):
        return None
    missing = [package for module, package in RUNTIME.items() if find_spec(module) is None]
    if missing:
        return SetupError(
            f"{', '.join(missing)}: not installed for this Python, expected Spark and its runtime; "
            "`pip install 'allmrec[runtime]'` brings them, and a managed runtime has them where its jobs run"
        )
    return SetupError(f"{name}: not installed for this Python; `pip install allmrec` brings what it needs")
