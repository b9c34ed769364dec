import { freePort, startFaultProxy, startKafka } from '@realtime-service/dev-stack';
import { kafkajs } from '../src/kafka/kafkajs.ts';

/** For tests: a broker of one's own that tells its clients to come through a fault proxy. */
export async function startProxiedKafka(settings: Readonly<Record<string, string>> = {}) {
  const port = await freePort();
  const proxy = await startFaultProxy(port);
  const kafka = await startKafka({
    port,
    settings: { 'advertised.listeners': `PLAINTEXT://127.0.0.1:${proxy.port}`, ...settings },
  });
  const brokers = [`127.0.0.1:${proxy.port}`];
  let topics = 0;
  return {
    kafka,
    proxy,
    brokers,
    client: new kafkajs.Kafka({ brokers, logLevel: kafkajs.logLevel.NOTHING }),
    createTopic: async (partitions: number, config: Readonly<Record<string, string>> = {}): Promise<string> => {
      topics += 1;
      await kafka.createTopics([{ topic: `topic-${topics}`, partitions, config }]);
      return `topic-${topics}`;
    },
    stop: async (): Promise<void> => {
      await kafka.stop();
      await proxy.stop();
    },
  };
}
