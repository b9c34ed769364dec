/** What other services send, in their languages and with their quirks, as the real worker projects it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { crc32 } from 'node:zlib';
import { defaultPartitionCount, readRecord } from '@realtime-service/contracts';
import { type Command, runCommand } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type KafkaProjection, partitionOf, startKafkaProjection, topic } from './kafka-projection.ts';
import { highOffsets } from './log-reader.ts';
import { readBatches } from './stored-batches.ts';

const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
const example = (path: string): string => fileURLToPath(new URL(`../../docs/producers/${path}`, import.meta.url));

/** Ids that others have stumbled over: paths, escapes, other scripts, two spellings of one name. */
const oddIds = [
  'a/b',
  'a%2Fb',
  '../admin',
  '..',
  'a b',
  'a?b#c',
  'a+b',
  '🎥',
  'caf\u00e9',
  'cafe\u0301',
  '100% "sure" \\ <b>',
  '\ufeffwith a byte order mark',
  'x'.repeat(100),
  'x'.repeat(101),
  `${'🎥'.repeat(47)}191`,
];
const [host = ''] = oddIds;
const padded = (text: string, bytes: number): string => text + 'x'.repeat(bytes - Buffer.byteLength(text));
/** Makes a record of 200 KB, which is several blocks in the framed forms of the codecs. */
const crowd = Array.from({ length: 1_300 }, (_, at) => padded(`member ${at} `, 150));

/** One room each: every codec in both modes, and every pair of codec, mode and transaction. */
const runs = ['none', 'gzip', 'snappy', 'lz4', 'zstd'].flatMap((codec, at) =>
  ['binary', 'structured'].map((mode, isStructured) => ({
    codec,
    mode,
    isTransactional: (at + isStructured) % 2 === 1,
    users: mode === 'binary' ? [...oddIds, ...crowd] : oddIds,
  })),
);

interface Program {
  readonly name: string;
  readonly command: Command;
  readonly roomName: string;
  readonly isSnappyFramed?: boolean;
  /** Codecs that need no library of their own; all of them by default. */
  readonly codecs?: readonly string[];
}

describeWith(['postgres', 'kafka'], 'producers', () => {
  let kafka: KafkaProjection;
  beforeAll(async () => {
    // What a crash leaves open may hold up a partition no longer than a transaction may.
    kafka = await startKafkaProjection({ 'transaction.max.timeout.ms': '10000' });
  }, 120_000);
  afterAll(() => kafka?.stop(), 60_000);

  interface Arguments {
    readonly room: string;
    readonly users: readonly string[];
    readonly codec?: string;
    readonly mode?: string;
    readonly isTransactional?: boolean;
  }
  const run = (
    { command, args, env }: Command,
    { room, users, codec = 'none', mode = 'binary', isTransactional = false }: Arguments,
  ) =>
    runCommand({
      command,
      args: [...args, kafka.broker.brokers.join(), codec, mode, String(isTransactional), room, ...users],
      // Java takes its arguments in the locale's encoding.
      env: { ...env, LC_ALL: 'C.UTF-8', TRACEPARENT: traceparent },
    });

  const isProjected = ({ name, command, roomName, isSnappyFramed, codecs }: Program): void => {
    const ownRuns = runs
      .filter(({ codec }) => codecs === undefined || codecs.includes(codec))
      .map((each, at, { length }) => ({
        ...each,
        room: at === length - 1 ? padded(`${name} 🎥 `, 256) : `${oddIds[at]} ${name}`,
      }));
    const [oneRun] = ownRuns.filter(({ mode }) => mode === 'structured');
    if (oneRun === undefined) throw new Error('there are no runs');

    test('C13, C14, C19: every codec, mode, and transaction is projected, each id byte for byte', async () => {
      const queue = [...ownRuns];
      const runInTurn = async (): Promise<void> => {
        for (let next = queue.shift(); next !== undefined; next = queue.shift()) await run(command, next);
      };
      await Promise.all([runInTurn(), runInTurn(), runInTurn()]);
      await kafka.untilCaughtUp(30_000);

      const { rows: rooms } = await kafka.pool.query('select * from rooms where name = $1', [roomName]);
      expect(rooms.map(({ room_id }) => room_id).sort()).toEqual(ownRuns.map(({ room }) => room).sort());
      for (const { room, codec, isTransactional, users } of ownRuns) {
        const header = rooms.find(({ room_id }) => room_id === room);
        expect(header).toMatchObject({ state: 'open', partition: partitionOf(room), sequence: '1' });

        const members = await kafka.membersOf(room);
        expect(members.map(({ user_id }) => user_id).sort()).toEqual([...users].sort());
        expect(members.filter(({ role }) => role === 'host').map(({ user_id }) => user_id)).toEqual([host]);
        expect(new Set(members.map(({ partition }) => partition))).toEqual(new Set([partitionOf(room)]));

        const offset = BigInt(header.offset);
        const batch = readBatches(kafka.logDirectory, topic, partitionOf(room)).findLast(
          (each) => each.firstOffset <= offset,
        );
        expect(batch).toMatchObject({ codec, isTransactional });
        if (codec === 'snappy' && isSnappyFramed !== undefined)
          expect(batch?.payload.subarray(1, 7).toString('latin1') === 'SNAPPY').toBe(isSnappyFramed);
      }
      expect(await kafka.metric('realtime_records_misplaced_total')).toEqual([0]);
    }, 120_000);

    test('the same ids again change nothing', async () => {
      const state = async () => {
        const applied = '(select count(*) from applied_facts) as facts';
        return (await kafka.pool.query(`select "offset", ${applied} from rooms where room_id = $1`, [oneRun.room]))
          .rows;
      };
      const before = await state();
      await run(command, oneRun);
      await kafka.untilCaughtUp();
      expect(await state()).toEqual(before);
    });

    test('its ids are those of other languages; one spelling of a name is not the other', async () => {
      const { room, users } = oneRun;
      await kafka.publisher.publish({ type: 'member.removed', subject: room, data: { userId: 'caf\u00e9' } });
      await kafka.untilCaughtUp();
      const left = (await kafka.membersOf(room)).filter(({ is_removed }) => !is_removed).map(({ user_id }) => user_id);
      expect(left.sort()).toEqual(users.filter((user) => user !== 'caf\u00e9').sort());
    });
  };

  /** What one of them says may rest on the one before it, which the outbox sends again: behind it, and for good. */
  const isFollowedByNone = ({ name, command }: Program): void => {
    test('a fact that the log did not take is followed by no other of its room', async () => {
      const room = `too large ${name}`;
      const lengthOf = async () => (await highOffsets(kafka.broker.brokers, topic)).get(partitionOf(room));
      const before = await lengthOf();
      const users = Array.from({ length: 5_500 }, (_, at) => padded(`member ${at} `, 191));
      await expect(run(command, { room, users })).rejects.toThrow();
      expect(await lengthOf()).toBe(before);
    });
  };

  const isKeptWhenRefused = ({ name, command }: Program): void => {
    test('what is refused is kept as it was sent: id, time, padded sequence, trace', async () => {
      const room = `refused ${name}`;
      await run(command, { room, users: ['x'.repeat(192)] });
      await kafka.untilCaughtUp();
      const letters = await kafka.deadLettersOf(room);
      const contexts = letters.map(({ reason, value, headers }) => {
        expect(reason).toBe('invalid_data');
        const bytes = Object.entries(headers).map(([header, text]) => [header, Buffer.from(text, 'base64')] as const);
        const reading = readRecord({ value, headers: Object.fromEntries(bytes) });
        return reading.kind === 'event' ? reading.event.context : reading;
      });
      const some = expect.stringMatching(/./);
      const common = { specversion: '1.0', id: some, source: some, time: some, subject: room, traceparent };
      expect(contexts).toMatchObject([
        { ...common, type: 'room.created', sequence: '00000000000000000001' },
        { ...common, type: 'member.updated', sequence: '00000000000000000002' },
      ]);
    });
  };

  describeWith(['java'], 'in Java', ({ java }) => {
    describe.each([
      { name: 'kafka-clients', mainClass: 'KafkaClientsProducer', roomName: 'Made in Java' },
      { name: 'spring-kafka', mainClass: 'SpringKafkaProducer', roomName: 'Made with Spring' },
    ])('with $name', ({ name, mainClass, roomName }) => {
      const program = {
        name,
        // Where numbers are written in digits of their own.
        command: { ...java, args: ['-Duser.language=ar', '-Duser.country=EG', ...java.args, mainClass] },
        roomName,
        isSnappyFramed: true,
      };
      isProjected(program);
      isFollowedByNone(program);
      isKeptWhenRefused(program);
    });
  });

  describeWith(['python'], 'in Python', ({ python }) => {
    const file = example('python/producer.py');
    const program = {
      name: 'confluent-kafka',
      command: { ...python, args: [file] },
      roomName: 'Made in Python',
      isSnappyFramed: false,
    };
    isProjected(program);
    isFollowedByNone(program);
    isKeptWhenRefused(program);
  });

  describeWith(['go'], 'in Go', ({ go }) => {
    const program = { name: 'franz-go', command: go, roomName: 'Made in Go' };
    isProjected(program);
    isFollowedByNone(program);
    isKeptWhenRefused(program);
  });

  describe('in TypeScript', () => {
    const program = {
      name: 'kafkajs',
      command: { command: process.execPath, args: [example('typescript/producer.ts')] },
      roomName: 'Made in TypeScript',
      codecs: ['none', 'gzip'],
    };
    isProjected(program);
    isFollowedByNone(program);

    test('what would be refused is not sent', async () => {
      const sending = run(program.command, { room: 'refused', users: ['x'.repeat(192)] });
      await expect(sending).rejects.toThrow('/0/data/members/0/userId');
    });
  });

  // The last one, since the others see that nothing is misplaced.
  describeWith(['python'], "with librdkafka's own partitioner", ({ python }) => {
    test('a fact is applied, and alarmed', async () => {
      const source = readFileSync(example('python/producer.py'), 'utf8');
      const withoutPartitioner = source.replace(/^.*"partitioner": "murmur2_random",\n/m, '');
      expect(withoutPartitioner).not.toBe(source);
      const file = join(kafka.directory, 'default-partitioner.py');
      writeFileSync(file, withoutPartitioner);
      const room = 'by crc32';
      const partition = crc32(room) % defaultPartitionCount;
      expect(partition).not.toBe(partitionOf(room));

      await run({ ...python, args: [file] }, { room, users: ['ann'] });
      await kafka.untilCaughtUp();
      expect(await kafka.memberOf(room, 'ann')).toMatchObject({ role: 'host', partition });
      // Counted after the commit.
      const misplaced = () => kafka.metric('realtime_records_misplaced_total');
      await expect.poll(misplaced, { timeout: 10_000 }).toEqual([2]);
    });
  });
});
