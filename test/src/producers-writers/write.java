import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Base64;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Writes the records of a file: key, value, and names and values of headers, each in base64. */
public class Writer {
  public static void main(String[] args) throws Exception {
    var settings = Map.<String, Object>of("bootstrap.servers", args[0]);
    try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
      for (String line : Files.readAllLines(Path.of(args[2]))) {
        var fields = Arrays.stream(line.split(" ", -1)).map(Base64.getDecoder()::decode).toArray(byte[][]::new);
        var record = new ProducerRecord<>(args[1], fields[0], fields[1]);
        for (int i = 2; i < fields.length; i += 2)
          record.headers().add(new String(fields[i], StandardCharsets.UTF_8), fields[i + 1]);
        producer.send(record).get();
      }
    }
  }
}
