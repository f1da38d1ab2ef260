#!/bin/sh
# The tests run against a real Triton: see that it is there, and install what it needs where that can be done unasked.
#
#     sh stack/provide-triton.sh PYTHON
set -eu

python=$1
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# Triton's Python backend loads the interpreter as a library, which Debian has in a package of its own.
if ! "$python" -m stack.triton_server --provide 2>/dev/null; then
    sh "$(dirname "$0")/apt-install.sh" "libpython$version" || true
fi

"$python" -m stack.triton_server --provide
