import type { LivekitFact } from '@realtime-service/contracts';
import { evolvePresence, keyOf, type RoomLife, type Session, WorkingSet } from '@realtime-service/room-model';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { applyChunk, type RoomStore } from '../src/index.ts';
import { chunkOf, livekitRecord } from './records.ts';

/** A store, and all that it knows of who is and was inside. */
export interface PresenceUnderTest {
  readonly store: RoomStore;
  readonly lives: () => Promise<readonly RoomLife[]>;
  readonly sessions: () => Promise<readonly Session[]>;
  readonly empty: () => Promise<void>;
}

const mostly = <T>(usual: T, other: T): fc.Arbitrary<T> =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: fc.constant(other) });

/** Few names and times, in any combination: what LiveKit would never say is among it. */
const anyRoom = fc
  .record({ name: mostly('r1', 'r2'), life: mostly(1, 2), isDated: fc.boolean() })
  .map(({ name, life, isDated }) => ({ name, sid: `RM_${life}`, ...(isDated && { creationTimeMs: life }) }));

const anyParticipant = fc
  .record({
    identity: mostly('ann', 'bob'),
    stay: fc.nat(4),
    joinedAtMs: fc.constantFrom(undefined, 0, 1, 2, 3, 4),
    version: fc.constantFrom(undefined, 1, 2),
  })
  .map(({ identity, stay, joinedAtMs, version }) => ({
    sid: `PA_${identity}_${stay}`,
    identity,
    kind: 'STANDARD' as const,
    ...(joinedAtMs !== undefined && { joinedAtMs }),
    ...(version !== undefined && { version }),
  }));

const anyFact: fc.Arbitrary<LivekitFact> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constantFrom('participant_joined', 'participant_left', 'participant_connection_aborted'),
      room: anyRoom,
      participant: anyParticipant,
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constantFrom('room_started', 'room_finished'), room: anyRoom }) },
  {
    weight: 2,
    arbitrary: fc
      .record({
        room: fc.option(anyRoom),
        listedAtMs: fc.integer({ min: -2, max: 30 }).map((ms) => 1_700_000_000_000 + ms),
        participants: fc.array(anyParticipant, { maxLength: 3 }),
      })
      .map((observed) => ({
        type: 'observed' as const,
        observed: { ...observed, roomName: observed.room?.name ?? 'r1' },
      })),
  },
);

const sortedBy = <T>(rows: Iterable<T>, key: (row: T) => string): T[] =>
  [...rows].sort((left, right) => (key(left) < key(right) ? -1 : 1));
const lifeKey = ({ roomId }: RoomLife): string => roomId;
const sessionKey = ({ roomId, roomSid, participantSid }: Session): string => keyOf(roomId, roomSid, participantSid);

type Entry = Extract<LivekitFact, { readonly participant: unknown }>;

const entry = (stay: number, joinedAtMs: number, room = 'r1', version = 1): Entry => ({
  type: 'participant_joined',
  room: { name: room, sid: 'RM_1', creationTimeMs: 1 },
  participant: { sid: `PA_ann_${stay}`, identity: 'ann', kind: 'STANDARD', joinedAtMs, version },
});

/** A store loads what is needed of what was; nothing that the fold would have asked for may be missing. */
export const presenceContract = (open: () => PresenceUnderTest, numRuns: number): void => {
  const expectFold = async (chunks: readonly (readonly LivekitFact[])[]): Promise<void> => {
    await open().empty();
    const records = chunks.flat().map((fact, offset) => livekitRecord(offset, fact));
    const model = new WorkingSet();
    for (const { content, recordedAtMs } of records)
      if (content.kind === 'livekit')
        for (const change of evolvePresence(model, content.fact, recordedAtMs)) model.put(change);

    let start = 0;
    for (const { length } of chunks) {
      await applyChunk(open().store, chunkOf(records.slice(start, start + length)));
      start += length;
    }
    expect(sortedBy(await open().lives(), lifeKey)).toEqual(sortedBy(model.lives.values(), lifeKey));
    expect(sortedBy(await open().sessions(), sessionKey)).toEqual(
      sortedBy([...model.sessionsOf('r1'), ...model.sessionsOf('r2')], sessionKey),
    );
  };

  test.each<[string, readonly (readonly LivekitFact[])[]]>([
    [
      'an earlier entry that is told after a later one that is over',
      [[entry(0, 3)], [{ ...entry(0, 3), type: 'participant_left' }], [entry(1, 2)]],
    ],
    ['one that came last, and is said to have come earlier', [[entry(0, 4), entry(1, 3)], [entry(0, 0, 'r1', 2)]]],
    [
      'one that came last, and has a namesake in another room',
      [
        [entry(0, 4), entry(1, 3)],
        [entry(0, 0, 'r1', 2), entry(1, 1, 'r2')],
      ],
    ],
    ['two of one time who are replaced', [[entry(0, 2), entry(1, 2)], [entry(2, 3)]]],
  ])('who is and was inside equals the pure fold: %s', (_, chunks) => expectFold(chunks));

  test('who is and was inside equals the pure fold, however the log is cut into chunks', async () => {
    const anyChunks = fc.array(fc.array(anyFact, { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 10 });
    await fc.assert(fc.asyncProperty(anyChunks, expectFold), { numRuns });
  }, 60_000);
};
