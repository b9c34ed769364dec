import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Creates a room with members and makes the first of them its host. The CloudEvents are written by hand. */
public class KafkaClientsProducer {
  private static final ObjectMapper json = new ObjectMapper();

  public static void main(String[] args) throws Exception {
    if (args.length < 6)
      throw new IllegalArgumentException("<brokers> <codec> <binary|structured> <transactional> <room> <user>...");
    String mode = args[2], room = args[4];
    boolean isTransactional = Boolean.parseBoolean(args[3]);
    List<String> users = List.of(args).subList(5, args.length);

    var settings = new LinkedHashMap<String, Object>();
    settings.put("bootstrap.servers", args[0]);
    settings.put("compression.type", args[1]);
    settings.put("acks", "all");
    settings.put("enable.idempotence", true);
    // No partitioner.class: the default one takes murmur2 of the key.
    if (isTransactional) {
      settings.put("transactional.id", "rooms-" + UUID.randomUUID());
      // By default a minute: so long the partition would be held up by what a crash left open.
      settings.put("transaction.timeout.ms", 10_000);
    }

    var members = users.stream().map(user -> Map.of("userId", user, "role", "speaker")).toList();
    var records = List.of(
        record(mode, "room.created", room, 1, Map.of("name", "Made in Java", "members", members)),
        record(mode, "member.updated", room, 2, Map.of("userId", users.get(0), "role", "host")));

    try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
      if (isTransactional) {
        producer.initTransactions();
        producer.beginTransaction();
      }
      // Of one room one after the other, so that none stands where the one before it failed. Published once this (or
      // the commit) returns; until then the row stays in the outbox.
      for (var record : records) producer.send(record).get();
      if (isTransactional) producer.commitTransaction();
    }
  }

  private static ProducerRecord<byte[], byte[]> record(
      String mode, String type, String subject, int sequence, Map<String, ?> data) throws Exception {
    var attributes = new LinkedHashMap<String, String>();
    attributes.put("specversion", "1.0");
    // Yours is the primary key of the outbox row: it must be the same for each attempt.
    attributes.put("id", UUID.nameUUIDFromBytes(bytes(type + "\n" + subject)).toString());
    attributes.put("source", "/examples/kafka-clients");
    attributes.put("type", type);
    attributes.put("subject", subject);
    // Not OffsetDateTime.toString(): it leaves out seconds that are zero.
    attributes.put("time", Instant.now().toString());
    // In the locale of the machine its digits may be Arabic ones.
    attributes.put("sequence", String.format(Locale.ROOT, "%020d", sequence));
    String traceparent = System.getenv("TRACEPARENT");
    if (traceparent != null) attributes.put("traceparent", traceparent);

    boolean isStructured = mode.equals("structured");
    var envelope = new LinkedHashMap<String, Object>(attributes);
    envelope.put("data", data);
    byte[] value = json.writeValueAsBytes(isStructured ? envelope : data);
    var record = new ProducerRecord<>("realtime.room-events.v1", bytes(subject), value);
    var contentType = isStructured ? "application/cloudevents+json" : "application/json";
    record.headers().add("content-type", bytes(contentType));
    if (!isStructured) attributes.forEach((name, text) -> record.headers().add("ce_" + name, bytes(text)));
    return record;
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }
}
