import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A guard taken away, and the test that must notice. */
export interface Mutant {
  readonly name: string;
  /** Each `from` stands once in its file. */
  readonly edits: readonly { readonly path: string; readonly from: string; readonly to: string }[];
  readonly caughtBy: {
    readonly file: string;
    readonly title: string;
    /** The real parts that the test needs. */
    readonly parts?: 'postgres';
  };
}

const batch = 'packages/room-store/src/batch.ts';
const applyChunk = 'packages/room-store/src/apply/apply-chunk.ts';
const leases = 'packages/room-store/src/leases.ts';
const seats = 'services/api/src/join/seats.int.test.ts';
const joinAgainstRemove = {
  file: 'test/src/simulation/join-against-remove.test.ts',
  title: 'no token is given to a question that was asked after the end of the right',
};

export const mutants: readonly Mutant[] = [
  {
    name: 'membership cached for 5 s',
    edits: [
      {
        path: batch,
        from: '  return (question) => {\n',
        to: `  const cache = new Map<string, { readonly known: A; readonly untilMs: number }>();
  return async (question) => {
    const cached = cache.get(JSON.stringify(question));
    if (cached !== undefined && cached.untilMs > Date.now()) return cached.known;
`,
      },
      {
        path: batch,
        from: '    return promise;\n',
        to: `    const known = await promise;
    cache.set(JSON.stringify(question), { known, untilMs: Date.now() + 5_000 });
    return known;
`,
      },
    ],
    caughtBy: joinAgainstRemove,
  },
  {
    name: 'a question joins a batch that was already sent',
    edits: [
      {
        path: batch,
        from: '  return (question) => {\n',
        to: `  return (question) => {
    const same = awaited?.find((each) => JSON.stringify(each.question) === JSON.stringify(question));
    if (same !== undefined) return same.promise;
`,
      },
      { path: batch, from: '{ question, resolve,', to: '{ promise, question, resolve,' },
    ],
    caughtBy: joinAgainstRemove,
  },
  {
    name: 'the offset is committed before the facts',
    edits: [
      {
        path: applyChunk,
        from: '  const result = await store.transaction((transaction) => apply(transaction, chunk));\n',
        to: `  const before = await store.transaction(async (transaction) => {
    const locked = await transaction.lockPosition(chunk);
    const isNext = chunk.fetchedOffset <= locked.nextOffset && locked.nextOffset < chunk.nextOffset;
    if (isNext) await transaction.advance(chunk, { ...locked, nextOffset: chunk.nextOffset });
    return locked;
  });
  const lockPosition = async () => before;
  const result = await store.transaction((transaction) => apply({ ...transaction, lockPosition }, chunk));
`,
      },
    ],
    caughtBy: { file: 'test/src/simulation/simulate.test.ts', title: 'the first seeds hold' },
  },
  {
    name: 'no version guard',
    edits: [
      {
        path: 'packages/room-model/src/origin.ts',
        from: '  if (!isLaterInLog(incoming, stored)) return false;\n',
        to: '  if (stored !== null) return true;\n',
      },
    ],
    caughtBy: {
      file: 'packages/room-model/src/room.test.ts',
      title: 'facts that say all about an entity, each with its own sequence, end alike in any order',
    },
  },
  {
    name: 'versions per room instead of per entity',
    edits: [
      {
        path: 'packages/room-model/src/room.ts',
        from: '  if (stored === undefined || isNewer(origin, stored.origin)) return memberChange(entities, added);\n',
        to: `  if ([...entities.membersOf(roomId)].every((member) => isNewer(origin, member.origin)))
    return memberChange(entities, added);
  if (stored === undefined) return [];
`,
      },
    ],
    caughtBy: {
      file: 'packages/room-model/src/room.test.ts',
      title: 'are per entity: what is known of one person says nothing about another',
    },
  },
  {
    name: 'no memory of the facts that were applied',
    edits: [
      {
        path: 'packages/room-store/src/apply/repeats.ts',
        from: '    if (appliedAtMs !== undefined && appliedAtMs >= newestMs - factIdentityMs) return null;\n',
        to: '    if (appliedAtMs !== undefined && appliedAtMs < 0) return null;\n',
      },
    ],
    caughtBy: {
      file: 'packages/room-store/test/memory-store.test.ts',
      title: 'a producer that sends a fact again does not bring a removed person back',
    },
  },
  {
    name: 'no look at the last record that was applied',
    edits: [{ path: applyChunk, from: '  assertSameLog(chunk, locked.last);\n', to: '' }],
    caughtBy: {
      file: 'packages/room-store/test/memory-store.test.ts',
      title: 'tells another log: before what was not applied yet, nothing of it is applied',
    },
  },
  {
    name: 'the offset is read, and not locked',
    edits: [
      {
        path: 'packages/room-store/src/postgres-store.ts',
        from: 'and "partition" = $3 for update`,\n',
        to: 'and "partition" = $3`,\n',
      },
    ],
    caughtBy: {
      file: 'packages/room-store/src/apply/apply-chunk.int.test.ts',
      title: 'a zombie between its writes and its commit',
      parts: 'postgres',
    },
  },
  {
    name: 'lock and load in one statement',
    edits: [
      { path: applyChunk, from: '    transaction.lock(touched),\n', to: '    Promise.resolve(),\n' },
      {
        path: 'packages/room-store/src/apply/write-chunk.ts',
        from: "where concern in ('room', 'identity')\n",
        to: `where concern in ('room', 'identity') and (select count(*) from (
            select from rooms where room_id in (select outer_id from concern) order by room_id for no key update) as locked) >= 0
`,
      },
    ],
    caughtBy: {
      file: 'packages/room-store/src/apply/races.int.test.ts',
      title: 'nobody is left inside without being asked about',
      parts: 'postgres',
    },
  },
  {
    name: 'whoever cannot be judged is let in',
    edits: [
      {
        path: 'services/api/src/join/decide-join.ts',
        from: '  const first = await fromStore(store.readFacts(entrant));\n',
        to: `  const room: RoomFacts = { ...unknownRoom(roomId), state: 'open', access: 'authenticated' };
  const nobody = { member: null, bans: [], user: null, isLoginEnded: false, doubt: null, ownSessions: [], seats: null };
  const first = await fromStore(store.readFacts(entrant)).catch(
    (): FactsAnswer => ({ facts: { room, ...nobody }, isRoomLive: true, nowMs: Date.now() }),
  );
`,
      },
      {
        path: 'services/api/src/join/decide-join.ts',
        from: '  const room = facts.room as RoomFacts;\n  const admission = { room, ',
        to: '  const admission = { room: facts.room ?? room, ',
      },
    ],
    caughtBy: { file: 'services/api/src/join/join-route.test.ts', title: 'the database is away' },
  },
  {
    name: 'no mark at participant_joined',
    edits: [
      {
        path: 'packages/room-store/src/apply/chunk-writes.ts',
        from: "      fact.type === 'participant_joined' ||\n",
        to: '',
      },
    ],
    caughtBy: {
      file: 'packages/room-store/test/memory-store.test.ts',
      title: 'an entry is always asked about: participant_joined',
    },
  },
  {
    name: 'no mark at participant_connection_aborted',
    edits: [
      {
        path: 'packages/room-store/src/apply/chunk-writes.ts',
        from: "      fact.type === 'participant_connection_aborted' ||\n",
        to: '',
      },
    ],
    caughtBy: {
      file: 'packages/room-store/test/memory-store.test.ts',
      title: 'an entry is always asked about: participant_connection_aborted',
    },
  },
  {
    name: 'guests stay in a room that becomes one of members',
    edits: [
      {
        path: 'packages/room-store/src/apply/chunk-writes.ts',
        from: '  before.access !== row.access ||\n',
        to: '',
      },
    ],
    caughtBy: {
      file: 'packages/room-store/test/memory-store.test.ts',
      title: 'a room that gives guests other rights is asked about: {"access"',
    },
  },
  {
    name: "guests keep their rights when the room's default role changes",
    edits: [
      {
        path: 'packages/room-store/src/apply/chunk-writes.ts',
        from: ' ||\n  before.defaultRole !== row.defaultRole;',
        to: ';',
      },
    ],
    caughtBy: {
      file: 'packages/room-store/test/memory-store.test.ts',
      title: 'a room that gives guests other rights is asked about: {"defaultRole"',
    },
  },
  {
    name: "LiveKit's clock before a newer list",
    edits: [
      {
        path: 'packages/room-model/src/presence.ts',
        from: '(isNewer ? beginLife : enterLife)(',
        to: 'enterLife(',
      },
    ],
    caughtBy: {
      file: 'packages/room-model/src/presence.test.ts',
      title: 'so is that of a room that nobody told of',
    },
  },
  {
    name: 'presence keyed by identity instead of sid',
    edits: [
      {
        path: 'packages/room-model/src/presence.ts',
        from: `  const stored = entities.session(room.name, room.sid, participant.sid);
  if (stored !== undefined && !stored.isLive)
    return stored.isEndTold
      ? []
      : [{ entity: 'session', row: { ...stored, endReason: departureReason(departure), isEndTold: true } }];
`,
        to: '  const stored = [...entities.sessionsOfIdentity(room.name, participant.identity)].find(({ isLive }) => isLive);\n',
      },
    ],
    caughtBy: {
      file: 'packages/room-model/src/presence.test.ts',
      title: "not ended by an older session's end",
    },
  },
  {
    name: 'a ban of oneself',
    edits: [
      {
        path: 'packages/room-model/src/authorise.ts',
        from: "return concerns === 'rights' ? deny('own_rights') : verdict;",
        to: 'return verdict;',
      },
    ],
    caughtBy: { file: 'packages/room-model/src/authorise.test.ts', title: 'a host on the own rights' },
  },
  {
    name: 'a person read from an identity',
    edits: [
      {
        path: 'services/api/src/moderation/moderation-route.ts',
        from: 'target: session, concerns',
        to: "target: session && { userId: identity.split(':')[0] ?? null, member: null }, concerns",
      },
    ],
    caughtBy: {
      file: 'services/api/src/moderation/moderation-route.test.ts',
      title: 'whose identity looks like another person',
    },
  },
  {
    name: 'a kick that hits whatever session is there',
    edits: [
      {
        path: 'services/room-worker/src/enforce.ts',
        from: 'if (present?.sid !== edge.participantSid) return false;',
        to: 'if (present === null) return false;',
      },
    ],
    caughtBy: { file: 'test/src/simulation/simulate.test.ts', title: 'the first seeds hold' },
  },
  {
    name: 'a track taken by its source alone',
    edits: [
      {
        path: 'services/room-worker/src/enforce.ts',
        from: 'if (!present.tracks.some(isDisguised)) return agree',
        to: 'if (present.tracks.length <= 32) return agree',
      },
    ],
    caughtBy: {
      file: 'services/room-worker/src/enforce.int.test.ts',
      title: 'under another source is told so and removed',
      parts: 'postgres',
    },
  },
  {
    name: 'a restore not noticed by a worker without questions',
    edits: [
      {
        path: 'services/room-worker/src/position-watch.ts',
        from: '  await gate.hasReachedKnown([]);\n',
        to: '',
      },
    ],
    caughtBy: {
      file: 'services/room-worker/src/worker.int.test.ts',
      title: 'nor does one that had no questions since',
      parts: 'postgres',
    },
  },
  {
    name: 'facts of an older primary acted on',
    edits: [
      {
        path: 'services/room-worker/src/enforce.ts',
        from: '  if (!(await judged.areFresh())) return later;\n',
        to: "  if (judged.verdict.kind === 'deny' && !(await gate.hasReachedKnown(keys))) return later;\n",
      },
    ],
    caughtBy: {
      file: 'services/room-worker/src/enforce.int.test.ts',
      title: 'by an older primary that answers, too',
      parts: 'postgres',
    },
  },
  {
    name: 'answers that overtake each other taken for a restore',
    edits: [
      {
        path: 'services/room-worker/src/lane-gate.ts',
        from: 'const before = new Map(seen);',
        to: 'const before = seen;',
      },
    ],
    caughtBy: {
      file: 'services/room-worker/src/lane-gate.test.ts',
      title: 'stays reached while answers overtake each other',
    },
  },
  {
    name: 'a schedule acted on by an older state',
    edits: [
      {
        path: 'services/room-worker/src/enforce.ts',
        from: 'return (await dependencies.gate.isCaughtUp([roomId])) ? readOne',
        to: 'return true ? readOne',
      },
      {
        path: 'services/room-worker/src/enforce.ts',
        from: "  if (end !== 'room_closed' && !(await areFresh())) return later;\n",
        to: '',
      },
    ],
    caughtBy: {
      file: 'services/room-worker/src/enforce.int.test.ts',
      title: 'of an older state ends nothing',
      parts: 'postgres',
    },
  },
  {
    name: 'seats counted without the lock of the room',
    edits: [{ path: leases, from: 'select pg_advisory_xact_lock(key) from', to: 'select key from' }],
    caughtBy: { file: seats, title: 'two processes that count in the same moment', parts: 'postgres' },
  },
  {
    name: 'what was read before a person got a lease is used again',
    edits: [{ path: leases, from: '    if (!row.is_reserved) outdated.add(person);\n', to: '' }],
    caughtBy: {
      file: 'packages/room-store/src/leases.int.test.ts',
      title: 'of one person they are answered as if each had come after the other',
      parts: 'postgres',
    },
  },
  {
    name: 'a used token keeps its seat',
    edits: [{ path: leases, from: 's.room_id = l.room_id and s.identity = l.identity', to: 'false' }],
    caughtBy: { file: seats, title: 'its holder who came and went gives it up', parts: 'postgres' },
  },
  {
    name: 'who joined later and has left is not looked at',
    edits: [
      {
        path: 'packages/room-store/src/apply/load-touched.ts',
        from: '    [isLastOfOthers, [namedRooms, roomSids, participantSids, identities]],\n',
        to: '',
      },
    ],
    caughtBy: {
      file: 'packages/room-store/src/apply/load-touched.int.test.ts',
      title: 'an earlier entry that is told after a later one that is over',
      parts: 'postgres',
    },
  },
  {
    name: 'who claimed a question settles it whoever has it by now',
    edits: [
      {
        path: 'packages/room-store/src/marks.ts',
        from: " and locked_until = $3::timestamptz'",
        to: " and $3::timestamptz is not null'",
      },
    ],
    caughtBy: {
      file: 'packages/room-store/src/apply/apply-chunk.int.test.ts',
      title: 'one that others have answered meanwhile, and that was raised anew, stays',
      parts: 'postgres',
    },
  },
  {
    name: 'a question is acted on however old its claim is',
    edits: [
      {
        path: 'services/room-worker/src/enforce.ts',
        from: 'msSince(claimedAt, clock) > beginWithinMs',
        to: 'msSince(claimedAt, clock) < 0',
      },
    ],
    caughtBy: {
      file: 'services/room-worker/src/enforce.int.test.ts',
      title: 'was found due too late is left to the next claim',
      parts: 'postgres',
    },
  },
  {
    name: 'a rebuild applies a dead letter that a later release reads',
    edits: [
      {
        path: 'services/cli/src/as-counted.ts',
        from: '    if (letter !== undefined) return asLetter(each, letter);\n',
        to: '',
      },
    ],
    caughtBy: {
      file: 'services/cli/src/rebuild-fill.int.test.ts',
      title: 'leaves dead letters what they became, whatever a later release reads in them',
      parts: 'postgres',
    },
  },
  {
    name: 'an ID token passes for a logout token',
    edits: [
      {
        path: 'services/api/src/logout/verify-logout-token.ts',
        from: '    nonce: z.undefined().optional(),\n',
        to: '',
      },
    ],
    caughtBy: { file: 'services/api/src/logout/logout-route.test.ts', title: 'a nonce' },
  },
  {
    name: 'a logout that the log does not take is dropped',
    edits: [
      {
        path: 'services/api/src/logout/logout-route.ts',
        from: 'await keepRecords(records)',
        to: 'await Promise.resolve()',
      },
    ],
    caughtBy: { file: 'services/api/src/logout/logout-route.test.ts', title: 'the log is away: the logout is kept' },
  },
];

/** @throws where what it changes does not stand exactly once in its file any more */
export const applyMutant = (folder: string, { name, edits }: Mutant): void => {
  for (const { path, from, to } of edits) {
    const parts = readFileSync(join(folder, path), 'utf8').split(from);
    if (parts.length !== 2) throw new Error(`${name}: no longer applies to ${path}`);
    writeFileSync(join(folder, path), parts.join(to));
  }
};
