"""Writes the records of a file: key, value, and names and values of headers, each in base64."""

import sys
from base64 import b64decode

from confluent_kafka import Producer

brokers, topic, path = sys.argv[1:]
producer = Producer({"bootstrap.servers": brokers, "partitioner": "murmur2_random"})
with open(path, encoding="ascii") as file:
    for line in file:
        key, value, *headers = (b64decode(field) for field in line.rstrip("\n").split(" "))
        names = (name.decode() for name in headers[::2])
        producer.produce(topic, key=key, value=value, headers=list(zip(names, headers[1::2])))
producer.flush()
