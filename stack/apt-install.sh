#!/bin/sh
# Install Debian packages where that can be done unasked; elsewhere do nothing.
#
#     sh stack/apt-install.sh PACKAGE...
set -eu

if command -v apt-get >/dev/null; then
    if [ "$(id -u)" = 0 ]; then
        apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n apt-get update
        sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
    fi
fi
