"""An archive of the classes that Spark and Delta load: tests start many JVMs, and each starts faster then.

Java's class data sharing (JEP 350). A JVM that does not find the archive, or finds one of other JARs, starts
as usual.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession

ARCHIVE = Path(tempfile.gettempdir()) / f"allmrec-{hashlib.sha256(sys.prefix.encode()).hexdigest()[:16]}.jsa"
"""One for each environment of this machine."""
USE = f"-XX:SharedArchiveFile={ARCHIVE} -Xshare:auto -Xlog:disable -Xlog:all=error:stderr"
"""Java options that read it; without the last two a JVM would write what it thinks of it to stdout."""
RECORD = "-XX:+RecordDynamicDumpInfo"
"""Java option of the session that `write_archive` is given."""


def write_archive(session: SparkSession) -> None:
    """Write the archive with what this session has loaded after some work; nothing without a JDK's `jcmd`."""
    jcmd = shutil.which("jcmd")
    if jcmd is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        table, partial = f"{folder}/table", ARCHIVE.with_suffix(f".{os.getpid()}")
        for number in range(2):
            rows = session.createDataFrame([(number, "a")], "number int, letter string")
            rows.write.format("delta").mode("append").save(table)
        session.read.format("delta").load(table).groupBy("letter").count().collect()
        pid = session.sparkContext._jvm.java.lang.ProcessHandle.current().pid()  # type: ignore[union-attr]
        subprocess.run(
            [jcmd, str(pid), "VM.cds", "dynamic_dump", str(partial)], capture_output=True, check=False
        )
        if partial.exists():
            os.replace(partial, ARCHIVE)
