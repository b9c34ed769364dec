import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What domain services in Java write. Usage: java -cp <jars> foreign-producer.java <brokers> <topic> <scenario> */
public class ForeignProducer {
  private static String brokers;
  private static String topic;

  public static void main(String[] args) throws Exception {
    brokers = args[0];
    topic = args[1];
    switch (args[2]) {
      case "codecs" -> codecs();
      case "transactions" -> transactions();
      case "left-open" -> leftOpen();
      default -> throw new IllegalArgumentException(args[2]);
    }
  }

  /** Per codec a batch of one small record and one of 200 KB, which is several blocks in the framed forms. */
  private static void codecs() throws Exception {
    byte[] large = new byte[200 * 1024];
    for (int i = 0; i < large.length; i++) large[i] = (byte) (i * 31 + (i >> 8));
    for (String codec : new String[] {"none", "gzip", "snappy", "lz4", "zstd"}) {
      try (var producer = producer(Map.of("compression.type", codec))) {
        producer.send(record(codec, "{\"a\":1}".getBytes(StandardCharsets.UTF_8)));
        producer.send(record(codec, large));
        producer.flush();
      }
    }
  }

  /** One record that counts, then much that must not be seen: the log ends with aborted records and a marker. */
  private static void transactions() throws Exception {
    try (var producer = producer(Map.of("transactional.id", "foreign"))) {
      producer.initTransactions();
      producer.beginTransaction();
      producer.send(record("committed", new byte[] {1}));
      producer.commitTransaction();
      for (int count : new int[] {1, 5_000}) {
        producer.beginTransaction();
        for (int i = 0; i < count; i++) producer.send(record("aborted", new byte[] {0}));
        producer.flush();
        producer.abortTransaction();
      }
    }
  }

  /** A transaction that its producer never ends: the broker does, 15 s later. Says when it had sent nothing yet. */
  private static void leftOpen() {
    var producer = producer(Map.of("transactional.id", "left-open", "transaction.timeout.ms", 15_000));
    producer.initTransactions();
    producer.beginTransaction();
    System.out.println(System.currentTimeMillis());
    producer.send(record("never", new byte[] {0}));
    producer.flush();
    Runtime.getRuntime().halt(0);
  }

  private static ProducerRecord<byte[], byte[]> record(String key, byte[] value) {
    return new ProducerRecord<>(topic, 0, key.getBytes(StandardCharsets.UTF_8), value);
  }

  private static KafkaProducer<byte[], byte[]> producer(Map<String, Object> settings) {
    var all = new java.util.HashMap<String, Object>(settings);
    all.put("bootstrap.servers", brokers);
    all.put("linger.ms", 50);
    all.put("batch.size", 1_000_000);
    return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
  }
}
