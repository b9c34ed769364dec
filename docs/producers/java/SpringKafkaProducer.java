import io.cloudevents.CloudEvent;
import io.cloudevents.core.builder.CloudEventBuilder;
import io.cloudevents.core.message.Encoding;
import io.cloudevents.jackson.JsonCloudEventData;
import io.cloudevents.jackson.JsonFormat;
import io.cloudevents.kafka.CloudEventSerializer;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.OffsetDateTime;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.common.serialization.StringSerializer;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.core.KafkaOperations;
import org.springframework.kafka.core.KafkaTemplate;

/**
 * The same with Spring Kafka and the CloudEvents SDK. In Spring Boot the settings stand under spring.kafka.producer.
 */
public class SpringKafkaProducer {
  private static final String topic = "realtime.room-events.v1";
  private static final ObjectMapper json = new ObjectMapper();

  public static void main(String[] args) {
    if (args.length < 6)
      throw new IllegalArgumentException("<brokers> <codec> <binary|structured> <transactional> <room> <user>...");
    String room = args[4];
    boolean isTransactional = Boolean.parseBoolean(args[3]);
    List<String> users = List.of(args).subList(5, args.length);

    var settings = new HashMap<String, Object>();
    settings.put("bootstrap.servers", args[0]);
    settings.put("compression.type", args[1]);
    settings.put("acks", "all");
    settings.put("enable.idempotence", true);
    settings.put("key.serializer", StringSerializer.class);
    settings.put("value.serializer", CloudEventSerializer.class);
    settings.put(CloudEventSerializer.ENCODING_CONFIG, Encoding.valueOf(args[2].toUpperCase()));
    settings.put(CloudEventSerializer.EVENT_FORMAT_CONFIG, JsonFormat.CONTENT_TYPE);
    // By default a minute: so long the partition would be held up by what a crash left open.
    if (isTransactional) settings.put("transaction.timeout.ms", 10_000);
    var factory = new DefaultKafkaProducerFactory<String, CloudEvent>(settings);
    if (isTransactional) factory.setTransactionIdPrefix("rooms-" + UUID.randomUUID() + "-");
    var template = new KafkaTemplate<>(factory);

    var members = users.stream().map(user -> Map.of("userId", user, "role", "speaker")).toList();
    var events = List.of(
        event("room.created", room, 1, Map.of("name", "Made with Spring", "members", members)),
        event("member.updated", room, 2, Map.of("userId", users.get(0), "role", "host")));
    if (isTransactional) template.executeInTransaction(operations -> send(operations, events));
    else send(template, events);
    factory.destroy();
  }

  private static boolean send(KafkaOperations<String, CloudEvent> kafka, List<CloudEvent> events) {
    // The key is the subject. Of one room one after the other, so that none stands where the one before it failed.
    // Published once `join` (or the transaction) returns; until then the row stays in the outbox.
    for (var event : events) kafka.send(topic, event.getSubject(), event).join();
    return true;
  }

  private static CloudEvent event(String type, String subject, int sequence, Map<String, ?> data) {
    // Yours is the primary key of the outbox row: it must be the same for each attempt.
    var id = UUID.nameUUIDFromBytes((type + "\n" + subject).getBytes(StandardCharsets.UTF_8));
    var builder = CloudEventBuilder.v1()
        .withId(id.toString())
        .withSource(URI.create("/examples/spring-kafka"))
        .withType(type)
        .withSubject(subject)
        .withTime(OffsetDateTime.now())
        .withExtension("sequence", String.format(Locale.ROOT, "%020d", sequence))
        .withData("application/json", JsonCloudEventData.wrap(json.valueToTree(data)));
    String traceparent = System.getenv("TRACEPARENT");
    if (traceparent != null) builder.withExtension("traceparent", traceparent);
    return builder.build();
  }
}
