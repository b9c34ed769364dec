import { type LogPartition, type PresenceEventData, positionName, topics } from '@realtime-service/contracts';
import {
  type Ban,
  type BanFacts,
  type EndedLogin,
  isSamePlace,
  isSeen,
  keyOf,
  type Member,
  type RoomHeader,
  type RoomLife,
  recentlyLeftMs,
  type Session,
  type Suspect,
  type User,
  WorkingSet,
  wasRemoved,
} from '@realtime-service/room-model';
import type { DeadLetter, ProjectionPartition } from '../src/apply/chunk.ts';
import { type ChunkWrites, edgeLifeSeconds, isByFact, type RaisedMark } from '../src/apply/chunk-writes.ts';
import type { Touched } from '../src/apply/touched.ts';
import {
  type Announcement,
  type ClaimedEdge,
  type ExpiredEdge,
  keptForSeconds,
  type Mark,
  unknownSessionRetryMs,
} from '../src/marks.ts';
import { activeProjection, type PartitionPosition } from '../src/positions.ts';
import type { FactsAnswer, FactsQuery } from '../src/read-facts.ts';
import type { ChunkTransaction, ProjectedPosition, RoomStore } from '../src/store.ts';
import { assertOpen, ConnectionLostError, Locks, type Owner } from './memory-locks.ts';

/**
 * The store in memory, for the simulation: row locks that wait, READ COMMITTED, all or nothing at the commit, and a
 * place before and after each statement at which a process can be held, fail or die. It passes the contract suite of
 * the one in PostgreSQL.
 */

interface MarkRow extends Omit<Mark, 'claim'> {
  readonly dueAtMs: number;
  readonly lockedUntilMs: number | null;
}

interface EdgeRow extends ClaimedEdge {
  readonly expiresAtMs: number;
  readonly lockedUntilMs: number | null;
}

/** Rows by key; a row is never changed but replaced, so that a copy of the maps is a copy of the database. */
class Tables {
  positions = new Map<string, ProjectionPartition & ProjectedPosition>();
  appliedFacts = new Map<string, { readonly recordedAtMs: number; readonly times: number }>();
  rooms = new Map<string, RoomHeader>();
  members = new Map<string, Member>();
  bans = new Map<string, Ban>();
  users = new Map<string, User>();
  logins = new Map<string, EndedLogin>();
  suspects = new Map<string, Suspect>();
  lives = new Map<string, RoomLife>();
  sessions = new Map<string, Session>();
  deadLetters = new Map<string, DeadLetter>();
  marks = new Map<string, MarkRow>();
  announced = new Map<string, PresenceEventData<'participant.permissions_applied'>>();
  edges = new Map<bigint, EdgeRow>();
  duties = new Map<string, { readonly holder: string; readonly heldUntilMs: number }>();

  copy(): Tables {
    const copy = new Tables();
    return Object.assign(copy, {
      positions: new Map(this.positions),
      appliedFacts: new Map(this.appliedFacts),
      rooms: new Map(this.rooms),
      members: new Map(this.members),
      bans: new Map(this.bans),
      users: new Map(this.users),
      logins: new Map(this.logins),
      suspects: new Map(this.suspects),
      lives: new Map(this.lives),
      sessions: new Map(this.sessions),
      deadLetters: new Map(this.deadLetters),
      marks: new Map(this.marks),
      announced: new Map(this.announced),
      edges: new Map(this.edges),
      duties: new Map(this.duties),
    });
  }
}

const positionKey = ({ projection, topic, partition }: ProjectionPartition): string =>
  keyOf(projection, topic, String(partition));
const factId = ({ topic, partition }: LogPartition, factKey: string): string =>
  keyOf(topic, String(partition), factKey);
const sessionKey = ({ roomId, roomSid, participantSid }: Session): string => keyOf(roomId, roomSid, participantSid);
const markLock = (roomId: string, identity: string): string => keyOf('mark', roomId, identity);
const sorted = (ids: Iterable<string>): string[] => [...new Set(ids)].sort();

/** Where a process may be held: before and after a statement. May reject: the connection failed there. */
export type Pause = (point: string) => Promise<void>;

export interface MemoryConnection extends RoomStore {
  /** Ends the process's connections: what is open is rolled back. */
  readonly drop: () => void;
}

/** What a backup holds. */
export type Backup = Tables;

export class MemoryDatabase {
  readonly #now: () => number;
  readonly #locks = new Locks();
  readonly #open = new Set<Owner>();
  #epoch = 0;
  #lastEdgeId = 0n;
  tables = new Tables();
  /** Told of each commit, with the partition that it advanced. */
  onCommit: (position: PartitionPosition) => void = () => {};
  /** Told when marks are announced. */
  onNotify: () => void = () => {};

  constructor(now: () => number) {
    this.#now = now;
  }

  preparePositions(projection: string, topic: string, partitionCount: number): void {
    for (let partition = 0; partition < partitionCount; partition += 1) {
      const at = { projection, topic, partition };
      this.tables.positions.set(positionKey(at), { ...at, nextOffset: 0n, newestRecordedAtMs: 0, last: null });
    }
  }

  backup(): Backup {
    return this.tables.copy();
  }

  /** Puts an older state back; whoever was at work loses the connection. */
  restore(backup: Backup): void {
    this.#epoch += 1;
    for (const owner of [...this.#open]) this.#end(owner);
    this.tables = backup.copy();
  }

  /** Everything that folds from room events, to compare with the pure fold. */
  projection(): WorkingSet {
    const { rooms, members, bans, users, logins, suspects } = this.tables;
    const set = new WorkingSet();
    for (const row of rooms.values()) set.put({ entity: 'room', row });
    for (const row of members.values()) set.put({ entity: 'member', row });
    for (const row of bans.values()) set.put({ entity: 'ban', row });
    for (const row of users.values()) set.put({ entity: 'user', row });
    for (const row of logins.values()) set.put({ entity: 'login', row });
    for (const row of suspects.values()) set.put({ entity: 'suspect', row });
    return set;
  }

  /** The connections of one process. */
  connect(pause: Pause = async () => {}): MemoryConnection {
    const mine = new Set<Owner>();
    const statement = async <T>(name: string, work: () => T | Promise<T>): Promise<T> => {
      const epoch = this.#epoch;
      await pause(`before ${name}`);
      const result = await work();
      await pause(`after ${name}`);
      if (epoch !== this.#epoch) throw new ConnectionLostError('the database was restored');
      return result;
    };
    const run = <T>(name: string, work: (owner: Owner) => T | Promise<T>): Promise<T> =>
      statement(name, async () => {
        const owner = this.#begin(mine);
        try {
          return await work(owner);
        } finally {
          this.#end(owner);
          mine.delete(owner);
        }
      });
    return {
      drop: () => {
        for (const owner of mine) this.#end(owner);
        mine.clear();
      },
      transaction: async (work) => {
        const owner = await statement('begin', () => this.#begin(mine));
        const effects: (() => void)[] = [];
        try {
          const result = await work(this.#transaction(owner, effects, statement));
          await statement('commit', () => {
            assertOpen(owner);
            for (const effect of effects) effect();
            this.#end(owner);
          });
          return result;
        } finally {
          this.#end(owner);
          mine.delete(owner);
        }
      },
      notifyMarks: () => statement('notifyMarks', () => this.onNotify()),
      readPositions: () => statement('readPositions', () => [...this.tables.positions.values()]),
      readFacts: (queries, noteStanding = () => {}) =>
        statement('readFacts', () => {
          noteStanding(this.#standing());
          return queries.map((query) => this.#answer(query));
        }),
      readLiveRoomIds: () =>
        statement('readLiveRoomIds', () =>
          [...this.tables.lives.values()].filter(({ isLive }) => isLive).map(({ roomId }) => roomId),
        ),
      readLiveRooms: (roomIds) =>
        statement('readLiveRooms', () =>
          [...this.tables.lives.values()]
            .filter(({ roomId, isLive }) => isLive && roomIds.includes(roomId))
            .map(({ roomId, roomSid }) => {
              const isInside = (session: Session): boolean =>
                session.isLive && session.roomId === roomId && session.roomSid === roomSid;
              return { roomId, roomSid, sessions: [...this.tables.sessions.values()].filter(isInside) };
            }),
        ),
      readSessionOwner: ({ roomId, identity, participantSid }) =>
        statement('readSessionOwner', () => {
          const isIt = (session: Session): boolean =>
            session.isLive &&
            session.roomId === roomId &&
            session.identity === identity &&
            session.participantSid === participantSid;
          const session = [...this.tables.sessions.values()].find(isIt);
          if (session === undefined) return null;
          const { userId, deviceId, loginId } = session;
          return { userId, deviceId, loginId };
        }),
      isInside: ({ roomId, identity }) =>
        statement('isInside', () =>
          [...this.tables.sessions.values()].some(
            (session) => session.isLive && session.roomId === roomId && session.identity === identity,
          ),
        ),
      holdDuty: (name, holder, seconds) =>
        statement('holdDuty', () => {
          const held = this.tables.duties.get(name);
          const heldForMs = held === undefined ? -1 : held.heldUntilMs - this.#now();
          const isFree = heldForMs < 0 || heldForMs > 2 * seconds * 1000;
          if (held?.holder !== holder && !isFree) return false;
          this.tables.duties.set(name, { holder, heldUntilMs: this.#now() + seconds * 1000 });
          return true;
        }),
      releaseDuty: (name, holder) =>
        statement('releaseDuty', () => {
          if (this.tables.duties.get(name)?.holder === holder) this.tables.duties.delete(name);
        }),
      claimMarks: (limit, seconds, first) => statement('claimMarks', () => this.#claimMarks(limit, seconds, first)),
      noteAnnouncement: (mark, announcement) =>
        run('noteAnnouncement', async (owner) => {
          const found = await this.#changeMark(owner, mark, (row) => ({ ...row, announcement }));
          return found !== undefined;
        }),
      settleMark: (mark, askAgainAtMs, announcement = null) =>
        run('settleMark', (owner) => this.#settleMark(owner, mark, { askAgainAtMs, announcement })),
      postponeMark: (mark, delayMs, attempts = mark.attempts) =>
        run('postponeMark', (owner) => this.#postponeMark(owner, mark, delayMs, attempts)),
      markIdentities: (roomId, identities, { cause, causedAtMs }) =>
        run('markIdentities', async (owner) => {
          const raised = sorted(identities).map((identity) => ({
            roomId,
            identity,
            trace: null,
            cause,
            causedAtMs,
            isByFact: false,
          }));
          for (const { identity } of raised) await this.#locks.take(owner, markLock(roomId, identity), 'update');
          for (const each of raised) {
            const known = this.tables.marks.get(keyOf(roomId, each.identity));
            this.#raise({ ...each, cause: known?.cause ?? each.cause, trace: known?.trace ?? null });
          }
        }),
      dropExpiredEdges: () => statement('dropExpiredEdges', () => this.#dropExpiredEdges()),
      claimEdges: (limit, seconds) => statement('claimEdges', () => this.#claimEdges(limit, seconds)),
      settleEdge: ({ edgeId }) => statement('settleEdge', () => void this.tables.edges.delete(edgeId)),
      postponeEdge: ({ edgeId }, delayMs) =>
        statement('postponeEdge', () => {
          const row = this.tables.edges.get(edgeId);
          if (row !== undefined) this.tables.edges.set(edgeId, { ...row, lockedUntilMs: this.#now() + delayMs });
        }),
    };
  }

  #standing(): bigint[] {
    return [...this.tables.positions.values()]
      .filter(({ projection, topic }) => projection === activeProjection && topic === topics.roomEvents)
      .sort((left, right) => left.partition - right.partition)
      .map(({ nextOffset }) => nextOffset);
  }

  #begin(mine: Set<Owner>): Owner {
    const owner: Owner = { isOpen: true, waitsFor: null };
    mine.add(owner);
    this.#open.add(owner);
    return owner;
  }

  #end(owner: Owner): void {
    owner.isOpen = false;
    this.#open.delete(owner);
    this.#locks.release(owner);
  }

  #transaction(
    owner: Owner,
    effects: (() => void)[],
    statement: <T>(name: string, work: () => T | Promise<T>) => Promise<T>,
  ): ChunkTransaction {
    let last: Promise<unknown> = Promise.resolve();
    // As on a connection: one after the other, and none after one that failed.
    const run = <T>(name: string, work: () => T | Promise<T>): Promise<T> => {
      const result = last.then(() =>
        statement(name, () => {
          assertOpen(owner);
          return work();
        }),
      );
      last = result;
      return result;
    };
    return {
      lockPosition: (at) =>
        run('lockPosition', async () => {
          await this.#locks.take(owner, positionKey(at), 'update');
          const row = this.tables.positions.get(positionKey(at));
          if (row === undefined) throw new Error('partition was not prepared');
          return { ...row, nowMs: this.#now() };
        }),
      knownFacts: (at, factKeys) =>
        run('knownFacts', () =>
          factKeys.flatMap((factKey) => {
            const known = this.tables.appliedFacts.get(factId(at, factKey));
            return known === undefined ? [] : [{ factKey, recordedAtMs: known.recordedAtMs }];
          }),
        ),
      readDeadLetters: (places) =>
        run('readDeadLetters', () => places.flatMap((place) => this.tables.deadLetters.get(positionName(place)) ?? [])),
      lock: (touched) =>
        run('lock', async () => {
          for (const roomId of sorted(touched.rooms)) await this.#locks.take(owner, keyOf('room', roomId), 'update');
          const strength = touched.users.size > 0 ? 'update' : 'share';
          for (const userId of sorted([...touched.users, ...touched.entering]))
            await this.#locks.take(owner, keyOf('user', userId), strength);
        }),
      load: (touched) => run('load', () => loadTouched(this.tables, touched)),
      write: (at, writes) => run('write', () => this.#write(owner, effects, at, writes)),
      advance: ({ projection, topic, partition }, position) =>
        run('advance', () => {
          const at = { projection, topic, partition, ...position };
          effects.push(() => {
            this.tables.positions.set(positionKey(at), at);
            this.onCommit(at);
          });
        }),
    };
  }

  async #write(owner: Owner, effects: (() => void)[], at: LogPartition, writes: ChunkWrites): Promise<number> {
    // What the statement sees: what is committed by now, and what this transaction has written itself.
    const sessions = [...new Map([...this.tables.sessions, ...writes.sessions]).values()];
    const raised = affectedBy(writes.marks.values(), sessions);
    for (const { roomId, identity } of raised) await this.#locks.take(owner, markLock(roomId, identity), 'update');
    effects.push(() => {
      for (const row of writes.rooms.values()) this.tables.rooms.set(row.roomId, row);
      for (const [key, row] of writes.members) this.tables.members.set(key, row);
      for (const [key, row] of writes.bans) this.tables.bans.set(key, row);
      for (const [key, row] of writes.users) this.tables.users.set(key, row);
      for (const [key, row] of writes.logins) this.tables.logins.set(key, row);
      for (const [key, row] of writes.suspects) this.tables.suspects.set(key, row);
      for (const [key, row] of writes.lives) this.tables.lives.set(key, row);
      for (const row of writes.sessions.values()) this.tables.sessions.set(sessionKey(row), row);
      for (const { factKey, origin, recordedAtMs, content } of writes.records) {
        const { topic, partition, offset } = origin;
        if (factKey !== null) {
          const id = factId(at, factKey);
          const times = (this.tables.appliedFacts.get(id)?.times ?? 0) + 1;
          this.tables.appliedFacts.set(id, { recordedAtMs, times });
        }
        if (content.kind === 'dead')
          this.tables.deadLetters.set(positionName(origin), {
            topic,
            partition,
            offset,
            recordedAtMs,
            ...content.dead,
          });
      }
      for (const { row, trace } of writes.edges) {
        this.#lastEdgeId += 1n;
        const causedAtMs = Math.min(row.origin.timeMs, this.#now());
        this.tables.edges.set(this.#lastEdgeId, {
          ...row,
          edgeId: this.#lastEdgeId,
          trace,
          causedAtMs,
          expiresAtMs: causedAtMs + edgeLifeSeconds * 1000,
          lockedUntilMs: null,
        });
      }
      for (const each of raised) this.#raise(each);
    });
    return raised.length + writes.edges.length;
  }

  /** To be called with the mark's row locked. */
  #raise({ roomId, identity, cause, causedAtMs, trace, isByFact }: Affected): void {
    const nowMs = this.#now();
    const known = this.tables.marks.get(keyOf(roomId, identity));
    this.tables.marks.set(keyOf(roomId, identity), {
      roomId,
      identity,
      cause,
      trace,
      causedAtMs: Math.min(causedAtMs, known?.causedAtMs ?? causedAtMs),
      generation: (known?.generation ?? 0n) + 1n,
      attempts: 0,
      announcement: known?.announcement ?? null,
      dueAtMs: isByFact && cause !== known?.cause ? nowMs : Math.min(nowMs, known?.dueAtMs ?? nowMs),
      lockedUntilMs: known?.lockedUntilMs ?? null,
    });
  }

  #claimMarks(limit: number, claimSeconds: number, first: 'oldest' | 'newest'): Mark[] {
    const nowMs = this.#now();
    const due = [...this.tables.marks.values()]
      .filter(
        ({ roomId, identity, dueAtMs, lockedUntilMs }) =>
          dueAtMs <= nowMs &&
          (lockedUntilMs === null || lockedUntilMs < nowMs || lockedUntilMs > nowMs + 2_000 * claimSeconds) &&
          !this.#locks.isHeld(markLock(roomId, identity)),
      )
      .sort((left, right) => (first === 'newest' ? right.dueAtMs - left.dueAtMs : left.dueAtMs - right.dueAtMs))
      .slice(0, limit);
    return due.map((row) => {
      const claimed = { ...row, lockedUntilMs: nowMs + claimSeconds * 1000, attempts: row.attempts + 1 };
      this.tables.marks.set(keyOf(row.roomId, row.identity), claimed);
      return { ...claimed, claim: String(claimed.lockedUntilMs) };
    });
  }

  /** Resolves with the row as it was found, where the mark is still claimed. */
  async #changeMark(owner: Owner, mark: Mark, change: (row: MarkRow) => MarkRow | null): Promise<MarkRow | undefined> {
    await this.#locks.take(owner, markLock(mark.roomId, mark.identity), 'update');
    const key = keyOf(mark.roomId, mark.identity);
    const row = this.tables.marks.get(key);
    if (row === undefined || String(row.lockedUntilMs) !== mark.claim) return undefined;
    const changed = change(row);
    if (changed === null) this.tables.marks.delete(key);
    else this.tables.marks.set(key, changed);
    return row;
  }

  async #postponeMark(owner: Owner, mark: Mark, delayMs: number, attempts: number): Promise<void> {
    await this.#changeMark(owner, mark, (row) => {
      const nowMs = this.#now();
      const again = row.generation === mark.generation ? { dueAtMs: nowMs + delayMs, attempts } : { dueAtMs: nowMs };
      return { ...row, lockedUntilMs: null, ...again };
    });
  }

  async #settleMark(
    owner: Owner,
    mark: Mark,
    { askAgainAtMs, announcement }: { askAgainAtMs: number | null; announcement: Announcement | null },
  ): Promise<string | null> {
    const isSame = ({ generation }: MarkRow): boolean => generation === mark.generation;
    if (announcement !== null) await this.#locks.take(owner, keyOf('room', mark.roomId), 'update');
    const told = [...this.tables.sessions.values()].find(
      (session) =>
        session.roomId === mark.roomId &&
        session.participantSid === announcement?.data.participantSid &&
        session.isLive &&
        isSeen(session),
    );
    if (announcement !== null && told === undefined) {
      await this.#postponeMark(owner, mark, unknownSessionRetryMs(mark.attempts), mark.attempts);
      return null;
    }
    const found = await this.#changeMark(owner, mark, (row) => {
      if (!isSame(row)) return { ...row, announcement: null, lockedUntilMs: null, dueAtMs: this.#now() };
      if (askAgainAtMs === null) return null;
      const dueAtMs = Math.min(askAgainAtMs, this.#now() + keptForSeconds * 1000);
      return { ...row, announcement: null, lockedUntilMs: null, attempts: 0, dueAtMs, causedAtMs: dueAtMs };
    });
    if (found !== undefined && announcement !== null && told !== undefined)
      this.tables.announced.set(announcement.eventId, { roomSid: told.roomSid, ...announcement.data });
    return found === undefined || isSame(found) ? null : found.trace;
  }

  #freeEdges(): EdgeRow[] {
    const nowMs = this.#now();
    return [...this.tables.edges.values()].filter(
      ({ lockedUntilMs }) => lockedUntilMs === null || lockedUntilMs < nowMs,
    );
  }

  #dropExpiredEdges(): ExpiredEdge[] {
    const expired = this.#freeEdges().filter(({ expiresAtMs }) => expiresAtMs <= this.#now());
    for (const { edgeId } of expired) this.tables.edges.delete(edgeId);
    return expired.map(({ kind, roomId, identity }) => ({ kind, roomId, identity }));
  }

  #claimEdges(limit: number, claimSeconds: number): ClaimedEdge[] {
    const nowMs = this.#now();
    const { edges } = this.tables;
    const due = this.#freeEdges()
      .filter(({ expiresAtMs }) => expiresAtMs > nowMs)
      .sort((left, right) => (left.lockedUntilMs ?? 0) - (right.lockedUntilMs ?? 0))
      .slice(0, limit);
    for (const row of due) edges.set(row.edgeId, { ...row, lockedUntilMs: nowMs + claimSeconds * 1000 });
    return due;
  }

  #answer({ roomId, userId, loginId }: FactsQuery): FactsAnswer {
    const { rooms, members, bans, users, logins, suspects, lives, sessions } = this.tables;
    const nowMs = this.#now();
    const isDoubted = ({ isHealed, ...about }: Suspect): boolean => {
      if (isHealed) return false;
      if (about.roomId === roomId) return about.userId === '' || about.userId === userId;
      const isOfLogin = about.scope === 'user' || about.detail === loginId;
      return about.roomId === '' && about.userId === userId && isOfLogin;
    };
    const doubts = [...suspects.values()].filter(isDoubted);
    const isRecent = ({ isLive, endedAtMs }: Session): boolean =>
      isLive || (endedAtMs !== null && endedAtMs > nowMs - recentlyLeftMs);
    const asFacts = ({ privilege, untilMs, reason }: Ban): BanFacts => ({ privilege, untilMs, reason });
    return {
      facts: {
        room: rooms.get(roomId) ?? null,
        member: members.get(keyOf(roomId, userId)) ?? null,
        bans: [...bans.values()]
          .filter((ban) => ban.roomId === roomId && ban.userId === userId && !ban.isLifted)
          .map(asFacts),
        user: users.get(userId) ?? null,
        isLoginEnded: loginId !== null && logins.has(keyOf(userId, loginId)),
        doubt: doubts.some(({ scope }) => scope !== 'header') ? 'person' : doubts.length > 0 ? 'header' : null,
        ownSessions: [...sessions.values()]
          .filter((session) => session.roomId === roomId && session.userId === userId && isRecent(session))
          .map((session) => ({ ...session, wasRemoved: wasRemoved(session) })),
        seats: null,
      },
      isRoomLive: lives.get(roomId)?.isLive ?? false,
      nowMs,
    };
  }
}

/** One session, or one room as a whole, that should be looked at. */
interface Affected {
  readonly roomId: string;
  readonly identity: string;
  readonly cause: string;
  readonly causedAtMs: number;
  readonly trace: string | null;
  readonly isByFact: boolean;
}

const isConcerned = ({ concern, outerId, innerId }: RaisedMark, session: Session): boolean => {
  if (!session.isLive) return false;
  if (concern === 'member') return session.roomId === outerId && session.userId === innerId;
  return session.userId === outerId && (concern === 'user' || session.loginId === innerId);
};

/** Sorted, once each, with its oldest cause. */
const affectedBy = (marks: Iterable<RaisedMark>, sessions: readonly Session[]): Affected[] => {
  const affected = new Map<string, Affected>();
  for (const mark of marks) {
    const { concern, outerId, innerId, cause, causedAtMs, trace } = mark;
    const ids =
      concern === 'room' || concern === 'identity'
        ? [{ roomId: outerId, identity: innerId }]
        : sessions.filter((session) => isConcerned(mark, session));
    for (const { roomId, identity } of ids) {
      const known = affected.get(keyOf(roomId, identity));
      if (known === undefined || causedAtMs < known.causedAtMs)
        affected.set(keyOf(roomId, identity), { roomId, identity, cause, causedAtMs, trace, isByFact: isByFact(mark) });
    }
  }
  return [...affected].sort(([left], [right]) => (left < right ? -1 : 1)).map(([, each]) => each);
};

/** What the fold can ask for (`PresenceEntities`), and no more: a fold that needs more has to fail here, too. */
const touchedSessions = (tables: Tables, liveRooms: Touched['liveRooms']): Set<Session> => {
  const rooms = new Map(
    [...liveRooms].map(([roomId, { sids, sessions, isWhole }]) => {
      const named = new Set(sessions.map(({ roomSid, participantSid }) => keyOf(roomSid, participantSid)));
      return [roomId, { sids, named, isWhole, identities: new Set(sessions.map(({ identity }) => identity)) }];
    }),
  );
  const found = new Set<Session>();
  const lastOfOthers = new Map<string, Session>();
  for (const row of tables.sessions.values()) {
    const room = rooms.get(row.roomId);
    if (room === undefined) continue;
    const isNamed = room.named.has(keyOf(row.roomSid, row.participantSid));
    const sharesIdentity = room.identities.has(row.identity);
    const isOfOlderLife = !room.sids.has(row.roomSid);
    if (isNamed || (row.isLive && (sharesIdentity || room.isWhole || isOfOlderLife))) found.add(row);
    if (isNamed || !sharesIdentity) continue;
    const key = keyOf(row.roomId, row.roomSid, row.identity);
    if (row.joinedAtMs > (lastOfOthers.get(key)?.joinedAtMs ?? Number.NEGATIVE_INFINITY)) lastOfOthers.set(key, row);
  }
  return new Set([...found, ...lastOfOthers.values()]);
};

const loadTouched = (tables: Tables, touched: Touched): WorkingSet => {
  const set = new WorkingSet();
  const { rooms, wholeRooms, users, liveRooms } = touched;
  type Pair = { readonly roomId: string; readonly userId: string };
  const isMember = ({ roomId, userId }: Pair): boolean => touched.members.get(roomId)?.has(userId) ?? false;
  const isBan = ({ roomId, userId }: Pair): boolean => touched.bans.get(roomId)?.has(userId) ?? false;
  const isOfWholeRoom = ({ roomId, userId, isRemoved }: Member): boolean => {
    const named = wholeRooms.get(roomId);
    return named !== undefined && (!isRemoved || named.has(userId));
  };
  for (const row of tables.rooms.values()) if (rooms.has(row.roomId)) set.put({ entity: 'room', row });
  for (const row of tables.members.values())
    if (isMember(row) || isOfWholeRoom(row)) set.put({ entity: 'member', row });
  for (const row of tables.bans.values()) if (isBan(row)) set.put({ entity: 'ban', row });
  for (const row of tables.users.values()) if (users.has(row.userId)) set.put({ entity: 'user', row });
  for (const row of tables.logins.values())
    if (touched.logins.get(row.userId)?.has(row.loginId)) set.put({ entity: 'login', row });
  const isLetter = ({ cause }: Suspect): boolean => touched.letters.some((letter) => isSamePlace(letter, cause));
  const isOpenDoubt = (row: Suspect): boolean =>
    !row.isHealed &&
    ((row.scope === 'header' && rooms.has(row.roomId)) ||
      wholeRooms.has(row.roomId) ||
      isMember(row) ||
      isBan(row) ||
      (row.roomId === '' && users.has(row.userId)));
  for (const row of tables.suspects.values())
    if (isOpenDoubt(row) || isLetter(row)) set.put({ entity: 'suspect', row });
  for (const row of tables.lives.values()) if (liveRooms.has(row.roomId)) set.put({ entity: 'life', row });
  for (const row of touchedSessions(tables, liveRooms)) set.put({ entity: 'session', row });
  return set;
};
