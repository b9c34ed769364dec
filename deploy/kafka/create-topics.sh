#!/bin/sh
# Creates the topics, once: create-topics.sh <bootstrap server>. Their partition count is fixed for their life.
# In production set REPLICATION_FACTOR=3: what is acknowledged then stands on two brokers at least.
set -eu

days() { echo $(($1 * 24 * 60 * 60 * 1000)); }

replicas=${REPLICATION_FACTOR:-1}

# A rebuild of the projections replays the room events: they are kept for ever, whatever the brokers' defaults are, and no
# replica leads that lacks some of them.
create() {
  kafka-topics.sh --bootstrap-server "$bootstrap" --create --if-not-exists --topic "$1" \
    --partitions 12 --replication-factor "$replicas" --config "min.insync.replicas=$(((replicas + 1) / 2))" \
    --config unclean.leader.election.enable=false --config cleanup.policy=delete --config retention.bytes=-1 \
    --config "retention.ms=$2"
}

bootstrap=$1
create realtime.room-events.v1 -1
create realtime.room-events.v1-dlt "$(days 30)"
create realtime.livekit-webhooks.v1 "$(days 7)"
create realtime.livekit-webhooks.v1-dlt "$(days 30)"
create realtime.presence.v1 "$(days 7)"

# Where there was none yet, the first producer's record may have made it, with the brokers' defaults;
# what they are otherwise than Kafka's is told, too.
told=$(kafka-topics.sh --bootstrap-server "$bootstrap" --describe --topic realtime.room-events.v1)
drops='[[:space:],](cleanup.policy=(delete,)?compact|retention.bytes=[0-9])'
if ! echo "$told" | grep -q '[[:space:],]retention.ms=-1' || echo "$told" | grep -Eq "$drops"; then
  echo 'realtime.room-events.v1 is there already, and drops facts: it must have' \
    'retention.ms=-1, retention.bytes=-1 and cleanup.policy=delete' >&2
  exit 1
fi
