// Writes the records of a file: key, value, and names and values of headers, each in base64.
package main

import (
	"context"
	"encoding/base64"
	"log"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	client, err := kgo.NewClient(kgo.SeedBrokers(os.Args[1]))
	check(err)
	defer client.Close()
	file, err := os.ReadFile(os.Args[3])
	check(err)
	for line := range strings.Lines(string(file)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		record := &kgo.Record{Topic: os.Args[2], Key: decode(fields[0]), Value: decode(fields[1])}
		for i := 2; i < len(fields); i += 2 {
			header := kgo.RecordHeader{Key: string(decode(fields[i])), Value: decode(fields[i+1])}
			record.Headers = append(record.Headers, header)
		}
		check(client.ProduceSync(context.Background(), record).FirstErr())
	}
}

func decode(field string) []byte {
	decoded, err := base64.StdEncoding.DecodeString(field)
	check(err)
	return decoded
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
