#!/bin/sh
# The tests run against a real Redis: see that there is a redis-server, and install it where that can be done unasked.
set -eu

command -v redis-server >/dev/null || sh "$(dirname "$0")/apt-install.sh" redis-server
command -v redis-server >/dev/null || {
    echo "The tests need redis-server. Install it and run them again: apt-get install redis-server" >&2
    exit 1
}
