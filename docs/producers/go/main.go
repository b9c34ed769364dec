// Creates a room with members and makes the first of them its host.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type fields = map[string]any

func main() {
	if len(os.Args) < 7 {
		log.Fatal("<brokers> <codec> <binary|structured> <transactional> <room> <user>...")
	}
	mode, isTransactional, room, users := os.Args[3], os.Args[4] == "true", os.Args[5], os.Args[6:]
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	// acks=all, idempotence and, for records with a key, murmur2 are franz-go's defaults.
	options := []kgo.Opt{kgo.SeedBrokers(os.Args[1]), kgo.ProducerBatchCompression(codecs[os.Args[2]])}
	if isTransactional {
		// By default 40 seconds: so long the partition would be held up by what a crash left open.
		options = append(options, kgo.TransactionalID("rooms-"+rand.Text()), kgo.TransactionTimeout(10*time.Second))
	}
	client, err := kgo.NewClient(options...)
	check(err)
	defer client.Close()

	members := []fields{}
	for _, user := range users {
		members = append(members, fields{"userId": user, "role": "speaker"})
	}
	records := []*kgo.Record{
		record(mode, "room.created", room, 1, fields{"name": "Made in Go", "members": members}),
		record(mode, "member.updated", room, 2, fields{"userId": users[0], "role": "host"}),
	}
	if isTransactional {
		check(client.BeginTransaction())
	}
	// Of one room one after the other, so that none stands where the one before it failed. Published once all this is
	// through without an error; until then the row stays in the outbox.
	for at := 0; at < len(records) && err == nil; at++ {
		err = client.ProduceSync(context.Background(), records[at]).FirstErr()
	}
	if isTransactional {
		err = errors.Join(err, client.EndTransaction(context.Background(), kgo.TransactionEndTry(err == nil)))
	}
	check(err)
}

func record(mode, eventType, subject string, sequence int, data fields) *kgo.Record {
	attributes := fields{
		"specversion": "1.0",
		// Yours is the primary key of the outbox row: it must be the same for each attempt.
		"id":     fmt.Sprintf("%x", sha256.Sum256([]byte(eventType+"\n"+subject))),
		"source": "/examples/franz-go", "type": eventType, "subject": subject,
		"time": time.Now().Format(time.RFC3339Nano), "sequence": fmt.Sprintf("%020d", sequence),
	}
	if traceparent, isSet := os.LookupEnv("TRACEPARENT"); isSet {
		attributes["traceparent"] = traceparent
	}
	value, headers := any(data), []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/json")}}
	for name, text := range attributes {
		headers = append(headers, kgo.RecordHeader{Key: "ce_" + name, Value: []byte(text.(string))})
	}
	if mode == "structured" {
		attributes["data"] = data
		value, headers = attributes, []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/cloudevents+json")}}
	}
	encoded, err := json.Marshal(value)
	check(err)
	return &kgo.Record{Topic: "realtime.room-events.v1", Key: []byte(subject), Value: encoded, Headers: headers}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
