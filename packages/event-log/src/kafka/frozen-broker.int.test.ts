import { type FaultProxy, freePort, type Kafka, startFaultProxy, startKafka } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, it, onTestFinished, vi } from 'vitest';
import { createRecorder, recordOf } from '../../test/log-contract.ts';
import { createKafkaLog } from './kafka-log.ts';

const topic = 'frozen';
const withinMs = 20_000;

describeWith(['kafka'], 'a broker that keeps its connections, and answers nothing', () => {
  let kafka: Kafka;
  let proxy: FaultProxy;
  let other: string;

  // One broker with two listeners stands for two: whoever comes by one of them is told to come by it again.
  beforeAll(async () => {
    const [port, otherPort, controllerPort] = [await freePort(), await freePort(), await freePort()];
    proxy = await startFaultProxy(port);
    other = `127.0.0.1:${otherPort}`;
    kafka = await startKafka({
      port,
      settings: {
        listeners: `OTHER://${other},PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
        'advertised.listeners': `OTHER://${other},PLAINTEXT://127.0.0.1:${proxy.port}`,
        'inter.broker.listener.name': 'OTHER',
        'listener.security.protocol.map': 'OTHER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
        'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
      },
    });
    await kafka.createTopics([{ topic, partitions: 1 }]);
  });
  afterAll(async () => {
    await kafka?.stop();
    await proxy?.stop();
  });

  it('is left within seconds for who has taken over, by who appends, reads, or asks how far the log goes', async () => {
    const brokers = [`127.0.0.1:${proxy.port}`, other];
    const log = createKafkaLog({ brokers, clientId: 'frozen', sessionTimeoutMs: 60_000, writeLog: () => undefined });
    onTestFinished(() => log.close());
    const { onBatch, untilApplied } = createRecorder();
    const consumer = log.consume({ group: 'frozen', topics: [topic], onBatch });
    onTestFinished(() => consumer.stop(5_000));
    await log.append([recordOf(topic, 'before')], withinMs);
    await untilApplied(1);
    proxy.stall();
    const bounds = vi.waitFor(() => log.bounds(topic), { timeout: withinMs });
    await log.append([recordOf(topic, 'after')], withinMs);
    await untilApplied(2);
    expect(await bounds).toMatchObject([{ low: 0n }]);
    await vi.waitFor(() => expect(consumer.isReady()).toBe(true), { timeout: withinMs });
  }, 60_000);

  it('is left for the next one by who has just come', async () => {
    proxy.stall();
    onTestFinished(() => proxy.heal());
    const brokers = [`127.0.0.1:${proxy.port}`, other];
    const log = createKafkaLog({ brokers, clientId: 'newcomer', writeLog: () => undefined });
    onTestFinished(() => log.close());
    expect(await log.bounds(topic)).toMatchObject([{ low: 0n }]);
  }, 30_000);
});
