import { describeWith } from '@realtime-service/dev-stack/vitest';
import { describeEventLog } from '../../test/log-contract.ts';
import { startProxiedKafka } from '../../test/proxied-kafka.ts';
import { createKafkaLog } from './kafka-log.ts';
import { kafkajs } from './kafkajs.ts';

const silent = (): void => undefined;

describeWith(['kafka'], 'the log on Kafka', () => {
  describeEventLog(async () => {
    const { brokers, client, proxy, createTopic, stop } = await startProxiedKafka();
    return {
      openLog: () => createKafkaLog({ brokers, clientId: 'contract', sessionTimeoutMs: 6_000, writeLog: silent }),
      createTopic,
      appendForeign: async (topic, partition, record) => {
        const producer = client.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
        await producer.connect();
        await producer.send({ topic, messages: [{ partition, ...record }] });
        await producer.disconnect();
      },
      stall: proxy.stall,
      heal: proxy.heal,
      close: stop,
    };
  });
});
