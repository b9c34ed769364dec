import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { deadLetterTopic, defaultPartitionCount, topics } from '@realtime-service/contracts';
import { type Kafka as Broker, startKafka } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import kafkajs from 'kafkajs';
import { afterAll, beforeAll, expect, test } from 'vitest';

const script = fileURLToPath(new URL('../../deploy/kafka/create-topics.sh', import.meta.url));
const dayMs = 24 * 60 * 60 * 1000;

describeWith(['kafka'], 'create-topics.sh', () => {
  let broker: Broker;
  let folder: string;

  beforeAll(async () => {
    broker = await startKafka({
      settings: {
        'log.cleanup.policy': 'compact',
        'log.retention.bytes': '1000000',
        'unclean.leader.election.enable': 'true',
      },
    });
    // Kafka's image has its tools as shell scripts on the PATH, the broker here only as classes.
    folder = mkdtempSync(join(tmpdir(), 'topics-'));
    const tool = `#!/bin/sh\nexec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp '${broker.javaClasspath}' org.apache.kafka.tools.TopicCommand "$@"\n`;
    writeFileSync(join(folder, 'kafka-topics.sh'), tool, { mode: 0o755 });
  });
  afterAll(async () => {
    await broker.stop();
    rmSync(folder, { recursive: true });
  });

  const create = () =>
    spawnSync('sh', [script, broker.brokers.join()], {
      encoding: 'utf8',
      env: { ...process.env, PATH: `${folder}:${process.env['PATH']}` },
    });

  // Each topic takes a Java of its own.
  test('creates each topic with its partitions and retention, and nothing the second time', {
    timeout: 90_000,
  }, async () => {
    expect(create()).toMatchObject({ status: 0 });
    expect(create()).toMatchObject({ status: 0 });

    const admin = new kafkajs.Kafka({ brokers: [...broker.brokers], logLevel: kafkajs.logLevel.NOTHING }).admin();
    await admin.connect();
    try {
      const { topics: created } = await admin.fetchTopicMetadata();
      const { resources } = await admin.describeConfigs({
        includeSynonyms: false,
        resources: created.map(({ name }) => ({ type: kafkajs.ConfigResourceTypes.TOPIC, name })),
      });
      const settings = new Map(
        resources.map(({ resourceName, configEntries }) => [
          resourceName,
          new Map(configEntries.map(({ configName, configValue }) => [configName, configValue])),
        ]),
      );
      // The broker's defaults are others here.
      for (const topic of settings.values()) {
        expect(topic.get('cleanup.policy')).toBe('delete');
        expect(topic.get('retention.bytes')).toBe('-1');
        expect(topic.get('unclean.leader.election.enable')).toBe('false');
      }
      const retention = (name: string) => Number(settings.get(name)?.get('retention.ms'));
      const seen = created.map(({ name, partitions }) => [name, partitions.length, retention(name)]);
      const { roomEvents, livekitWebhooks, presence } = topics;
      expect(seen.sort()).toEqual(
        [
          [roomEvents, defaultPartitionCount, -1],
          [deadLetterTopic(roomEvents), defaultPartitionCount, 30 * dayMs],
          [livekitWebhooks, defaultPartitionCount, 7 * dayMs],
          [deadLetterTopic(livekitWebhooks), defaultPartitionCount, 30 * dayMs],
          [presence, defaultPartitionCount, 7 * dayMs],
        ].sort(),
      );
    } finally {
      await admin.disconnect();
    }
  });

  test('fails where a topic is there that drops facts, as one that a record has made', {
    timeout: 120_000,
  }, async () => {
    const admin = new kafkajs.Kafka({ brokers: [...broker.brokers], logLevel: kafkajs.logLevel.NOTHING }).admin();
    await admin.connect();
    await admin.createTopics({ topics: [{ topic: topics.roomEvents }] });
    const topic = { type: kafkajs.ConfigResourceTypes.TOPIC, name: topics.roomEvents };
    // What is not set is as the broker has it.
    const unfit = [
      { 'cleanup.policy': 'delete', 'retention.bytes': '-1', 'retention.ms': String(7 * dayMs) },
      { 'cleanup.policy': 'delete', 'retention.ms': '-1' },
      { 'retention.bytes': '-1', 'retention.ms': '-1' },
    ];
    for (const settings of unfit) {
      const configEntries = Object.entries(settings).map(([name, value]) => ({ name, value }));
      await admin.alterConfigs({ validateOnly: false, resources: [{ ...topic, configEntries }] });
      const { status, stderr } = create();
      expect({ settings, status }).toEqual({ settings, status: 1 });
      expect(stderr).toContain('it must have retention.ms=-1, retention.bytes=-1 and cleanup.policy=delete');
    }
    await admin.disconnect();
  });

  test('fails when there is no broker', async () => {
    await broker.stop();
    const { status } = spawnSync('sh', [script, 'not-a-broker'], {
      encoding: 'utf8',
      env: { ...process.env, PATH: `${folder}:${process.env['PATH']}` },
    });
    expect(status).not.toBe(0);
  });
});
