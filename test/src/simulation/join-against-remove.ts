import { decideEntry } from '@realtime-service/api';
import { topics } from '@realtime-service/contracts';
import { activeProjection, applyChunk, createFactsReader } from '@realtime-service/room-store';
import { MemoryDatabase } from '@realtime-service/room-store/memory';
import { decodeRecord } from '@realtime-service/room-worker';
import { Random } from './random.ts';
import { FactSource, loginOf } from './room-facts.ts';
import { Scheduler, type SimulatedProcess } from './scheduler.ts';
import { partitionCount, SimulatedLog } from './simulated-log.ts';

export interface RaceOutcome {
  /** Tokens for questions that were asked after the end of the right was committed. */
  readonly wrong: number;
  readonly tokens: number;
  readonly askedAfter: number;
}

const roomId = 'r1';
const userId = 'ann';
const person = { roomId, userId, loginId: loginOf(userId, 0), deviceId: null, takeOver: false, loginEndsAtMs: null };
const ends: readonly (readonly [type: string, subject: string, data: object | undefined])[] = [
  ['member.removed', roomId, { userId }],
  ['member.banned', roomId, { userId, privilege: 'join' }],
  ['user.disabled', userId, { userId }],
  ['login.ended', userId, { userId, sid: loginOf(userId, 0) }],
  ['room.closed', roomId, undefined],
];

/** Joins of one member, asked at any moment around the end of that member's right. */
export const raceJoinAgainstRemove = async (seed: number): Promise<RaceOutcome> => {
  const random = new Random(seed);
  const scheduler = new Scheduler(random);
  const log = new SimulatedLog(scheduler);
  const database = new MemoryDatabase(() => scheduler.nowMs);
  database.preparePositions(activeProjection, topics.roomEvents, partitionCount);
  const facts = new FactSource(random);
  const toError = () => new Error('the connection was terminated');
  const connect = (name: string) => {
    const process: SimulatedProcess = { name, isDead: false, isPaused: false, skewMs: 0 };
    return database.connect((point) => scheduler.wait(process, point, toError));
  };
  const chunkOf = (type: string, subject: string, data: object | undefined) => {
    const { topic, partition, offset } = log.append(facts.fact(type, subject, 'any', data, scheduler.nowMs).record);
    const records = log.records(topic, partition).slice(Number(offset));
    return {
      projection: activeProjection,
      topic,
      partition,
      fetchedOffset: offset,
      nextOffset: offset + 1n,
      records: records.map((record) => decodeRecord(record, partitionCount).record),
    };
  };
  const members = [{ userId, role: 'speaker' }];
  await applyChunk(database.connect(), chunkOf('room.created', roomId, { members }));

  const outcome = { wrong: 0, tokens: 0, askedAfter: 0 };
  let isEnded = false;
  database.onCommit = () => {
    isEnded = true;
  };
  const apis = ['api 1', 'api 2'].map((name) => createFactsReader(connect(name).readFacts, { deadlineMs: 2_500 }));
  const ask = (): void => {
    const isAfter = isEnded;
    if (isAfter) outcome.askedAfter += 1;
    const store = { readFacts: random.pick(apis), takeSeat: () => Promise.reject(new Error('no seats here')) };
    decideEntry(store, person).then(
      () => {
        outcome.tokens += 1;
        if (isAfter) outcome.wrong += 1;
      },
      () => {},
    );
  };
  const steps = 40;
  const endAt = random.below(steps / 2);
  for (let step = 0; step < steps; step += 1) {
    if (step === endAt) void applyChunk(connect('worker'), chunkOf(...random.pick(ends)));
    if (random.isLikely(0.25)) ask();
    await scheduler.turn();
    if (random.isLikely(0.1)) await scheduler.advance(random.below(3_000));
  }
  while (!scheduler.isIdle) await scheduler.turn();
  ask();
  do await scheduler.turn();
  while (!scheduler.isIdle);
  return outcome;
};
