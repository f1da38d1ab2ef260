#!/bin/sh
# Install Debian packages where that can be done unasked; elsewhere do nothing. No service of theirs is started.
#
#     sh stack/apt-install.sh PACKAGE...
set -eu

command -v apt-get >/dev/null || exit 0
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null && sudo -n true 2>/dev/null || exit 0
    exec sudo -n sh "$0" "$@"
fi

# Debian starts a package's service when it is installed, unless this program says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
