#!/bin/sh
# Runs a tool of tools.txt from build/tools, which is made when the list has changed: tools.sh pip-audit …
set -eu
cd "$(dirname "$0")/../.."
mark=build/tools/installed
if ! cmp -s scripts/packaging/tools.txt "$mark"; then
    "$(scripts/python)" -m venv build/tools
    build/tools/bin/python -m pip install --disable-pip-version-check --quiet -r scripts/packaging/tools.txt
    cp scripts/packaging/tools.txt "$mark"
fi
tool=$1 && shift
exec "build/tools/bin/$tool" "$@"
