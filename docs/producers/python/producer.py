"""Creates a room with members and makes the first of them its host."""

import json
import os
import sys
import uuid
from datetime import datetime, timezone

from confluent_kafka import Producer

TOPIC = "realtime.room-events.v1"


def attributes_of(event_type, subject, sequence):
    attributes = {
        "specversion": "1.0",
        # Yours is the primary key of the outbox row: it must be the same for each attempt.
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{event_type}\n{subject}")),
        "source": "/examples/confluent-kafka",
        "type": event_type,
        "subject": subject,
        "time": datetime.now(timezone.utc).isoformat(),
        "sequence": f"{sequence:020}",
    }
    if traceparent := os.environ.get("TRACEPARENT"):
        attributes["traceparent"] = traceparent
    return attributes


def to_record(mode, attributes, data):
    if mode == "structured":
        headers = {"content-type": "application/cloudevents+json"}
        value = {**attributes, "data": data}
    else:
        headers = {"content-type": "application/json"}
        headers |= {f"ce_{name}": text.encode() for name, text in attributes.items()}
        value = data
    # Raises where a text cannot be UTF-8, as with a lone surrogate; json.dumps alone would write that as an escape.
    encoded = json.dumps(value, ensure_ascii=False).encode()
    return {"key": attributes["subject"].encode(), "value": encoded, "headers": headers}


def main(brokers, codec, mode, transactional, room, *users):
    failures = []
    is_transactional = transactional == "true"
    settings = {
        "bootstrap.servers": brokers,
        "compression.type": codec,
        "acks": "all",
        "enable.idempotence": True,
        # librdkafka's default hashes with CRC32 and sends a room's events to another partition than everybody else.
        "partitioner": "murmur2_random",
    }
    if is_transactional:
        settings["transactional.id"] = f"rooms-{uuid.uuid4()}"
        # By default a minute: so long the partition would be held up by what a crash left open.
        settings["transaction.timeout.ms"] = 10_000
    producer = Producer(settings)

    members = [{"userId": user, "role": "speaker"} for user in users]
    events = [
        ("room.created", {"name": "Made in Python", "members": members}),
        ("member.updated", {"userId": users[0], "role": "host"}),
    ]
    if is_transactional:
        producer.init_transactions()
        producer.begin_transaction()
    for sequence, (event_type, data) in enumerate(events, start=1):
        record = to_record(mode, attributes_of(event_type, room, sequence), data)
        producer.produce(TOPIC, **record, on_delivery=lambda error, _: error and failures.append(error))
        # Of one room one after the other, so that none stands where the one before it failed. Published once this (or
        # the commit) is through without failures; until then the row stays in the outbox.
        producer.flush()
        if failures:
            if is_transactional:
                producer.abort_transaction()
            sys.exit(f"not published: {failures[0]}")
    if is_transactional:
        producer.commit_transaction()


if __name__ == "__main__":
    if len(sys.argv) < 7:
        sys.exit("<brokers> <codec> <binary|structured> <transactional> <room> <user>...")
    main(*sys.argv[1:])
