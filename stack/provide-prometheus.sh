#!/bin/sh
# promtool checks the metrics and the alert rules: see that it is there, and install Debian's package of Prometheus where
# that can be done unasked. Without it its tests are skipped, and say so.
set -eu

command -v promtool >/dev/null || sh "$(dirname "$0")/apt-install.sh" prometheus || true
command -v promtool >/dev/null || echo "promtool is missing, its tests are skipped: apt-get install prometheus" >&2
