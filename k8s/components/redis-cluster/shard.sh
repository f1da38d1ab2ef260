#!/bin/sh
# One shard of a Redis Cluster without replicas. If a shard is lost, the images it cached are encoded again.
#
#     PEERS="host:port ..." ORDINAL=0 REDIS_PASSWORD=... REDIS_MAXMEMORY=3gb shard.sh FOLDER CONFIG...
#
# The shard's ordinal among the peers determines its range of hash slots. It keeps looking for peers that are new or whose address
# has changed. FOLDER stores the cluster state, which contains the assigned slots.
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
# The configuration is passed on standard input, so that the password does not appear in process listings.
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
