import { deadLetterTopic, topics } from '@realtime-service/contracts';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import kafkajs, { type Message } from 'kafkajs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Identity, startDevIdentity } from './identity.ts';
import { highOffsets } from './log-reader.ts';
import { type System, startSystem } from './system.ts';

describeWith(
  ['postgres', 'kafka', 'livekit'],
  'records that cannot be read, between good ones, on a real broker',
  () => {
    let identity: Identity;
    let system: System;

    beforeAll(async () => {
      identity = await startDevIdentity();
      system = await startSystem({ identity });
    }, 120_000);
    afterAll(async () => {
      await system?.stop();
      await identity?.stop();
    }, 60_000);

    test('are kept with their reason, the good ones count, and whoever they may concern cannot enter', async () => {
      const [ann, bob] = [identity.subjectOf('ann'), identity.subjectOf('bob')];
      const room = 'poisoned';
      const members = [
        { userId: ann, role: 'host' as const },
        { userId: bob, role: 'speaker' as const },
      ];
      await system.publish({ type: 'room.created', subject: room, data: { members } });
      await until('both may enter', async () => (await system.join('bob', room)).status === 200);

      const headers = (type: string, id: string) => ({
        ce_specversion: '1.0',
        ce_id: id,
        ce_source: '/e2e/poison',
        ce_type: type,
        ce_subject: room,
        'content-type': 'application/json',
      });
      const removal = JSON.stringify({ userId: bob });
      const poison: Message[] = [
        { key: room, headers: headers('member.updated', 'not-json'), value: '{"userId":' },
        {
          key: room,
          headers: headers('member.removed', 'wrong-schema'),
          value: JSON.stringify({ userId: 7 }),
        },
        {
          key: room,
          headers: headers('member.removed', 'prefix'),
          value: Buffer.concat([Buffer.from([0, 0, 0, 0, 12]), Buffer.from(removal)]),
        },
        { key: room, value: null },
        { key: null, headers: headers('member.removed', 'no-key'), value: removal },
        {
          key: room,
          headers: headers('member.added', 'large'),
          value: JSON.stringify({ userId: 'u'.repeat(900_000), role: 'host' }),
        },
      ];
      const brokers = [...(system.kafka?.brokers ?? [])];
      const producer = new kafkajs.Kafka({ brokers, logLevel: kafkajs.logLevel.NOTHING }).producer({
        createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
      });
      await producer.connect();
      for (const message of poison) await producer.send({ topic: topics.roomEvents, messages: [message] });
      await producer.disconnect();
      await system.publish({
        type: 'member.added',
        subject: room,
        data: { userId: identity.subjectOf('cleo'), role: 'listener' },
      });

      const { rows } = await until('all are kept', async () => {
        const found = await system.pool.query('select reason from dead_letters order by reason');
        return found.rows.length === 5 && found;
      });
      expect(rows.map(({ reason }) => reason)).toEqual([
        'invalid_data',
        'invalid_data',
        'key_mismatch',
        'not_json',
        'schema_registry_prefix',
      ]);

      // Whom the removals meant cannot be read from all of them: nobody may enter until the members are told anew.
      expect((await system.join('bob', room)).status).toBe(503);
      await system.publish({ type: 'room.created', subject: room, data: { members } });
      await until('the room is healed', async () => (await system.join('bob', room)).status === 200);
      expect((await system.join('cleo', room)).status).toBe(404);

      await until('producers can see them', async () => {
        const ends = await highOffsets(brokers, deadLetterTopic(topics.roomEvents));
        return [...ends.values()].reduce((sum, end) => sum + end, 0n) === 5n;
      });
    }, 90_000);
  },
);
