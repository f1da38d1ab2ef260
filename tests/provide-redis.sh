#!/bin/sh
# The tests run against a real Redis: see that there is a redis-server, and install it where that can be done unasked.
set -eu

if ! command -v redis-server >/dev/null && command -v apt-get >/dev/null; then
    if [ "$(id -u)" = 0 ]; then
        apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y redis-server
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n apt-get update && sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install -y redis-server
    fi
fi

command -v redis-server >/dev/null || {
    echo "The tests need redis-server. Install it and run them again: apt-get install redis-server" >&2
    exit 1
}
