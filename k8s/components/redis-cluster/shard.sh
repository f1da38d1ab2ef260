#!/bin/sh
# One shard of a Redis Cluster without replicas: what a shard that is away would have held is encoded again.
#
#     PEERS="host:port ..." ORDINAL=0 REDIS_PASSWORD=... REDIS_MAXMEMORY=3gb shard.sh FOLDER CONFIG...
#
# It takes the part of the slots that its place among the peers gives it, and goes on looking for peers that it does not
# know, or that came back with another address. Which slots it has, it keeps in FOLDER.
set -eu

own=$(echo "$PEERS" | cut -d' ' -f$((ORDINAL + 1)))
shards=$(echo "$PEERS" | wc -w)
export REDISCLI_AUTH="$REDIS_PASSWORD"

ask() {
    redis-cli -p "${own##*:}" cluster "$@"
}

join() {
    until ask addslotsrange $((16384 * ORDINAL / shards)) $((16384 * (ORDINAL + 1) / shards - 1)) | grep -E 'OK|already busy'; do
        sleep 0.2
    done
    while nodes=$(ask nodes); do
        for peer in $PEERS; do
            address=$(getent hosts "${peer%:*}" | cut -d' ' -f1) || continue
            case $nodes in
                *" $address:${peer##*:}@"*) ;;
                *) ask meet "$address" "${peer##*:}" ;;
            esac
        done
        sleep 2
    done
}

join >/dev/null 2>&1 &

folder=$1
shift
# By standard input, so that the password is in no list of processes.
exec redis-server - <<END
$(cat "$@")
dir $folder
port ${own##*:}
maxmemory $REDIS_MAXMEMORY
requirepass $REDIS_PASSWORD
cluster-enabled yes
cluster-config-file $folder/nodes.conf
cluster-announce-hostname ${own%:*}
cluster-preferred-endpoint-type hostname
cluster-require-full-coverage no
cluster-allow-reads-when-down yes
END
