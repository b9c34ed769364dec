import { randomUUID } from 'node:crypto';
import { isDisguised, type LivekitObserved, type LivekitRoom, observedType } from '@realtime-service/contracts';
import { type EventLog, type NewRecord, RecordTooLargeError } from '@realtime-service/event-log';
import { type ListedParticipant, type ListedSid, LivekitError, type RoomService } from '@realtime-service/livekit';
import { isHeardSince, isPerson } from '@realtime-service/room-model';
import { createDuty, type LiveRoom, type RoomStore } from '@realtime-service/room-store';
import { type Logger, withSpan } from '@realtime-service/telemetry';
import type { z } from 'zod';
import type { Clock } from './clock.ts';
import { listedForLog, toLivekitRecord } from './livekit-record.ts';
import type { WorkerMetrics } from './metrics.ts';

const dutyName = 'sweep';
/** A room that differs is looked at again after so long: webhooks may be on their way. */
const secondLookAfterMs = 1_000;
/** Between two sweeps that take longer than the interval. */
const leastPauseMs = 1_000;
/** LiveKit serves joins beside us. */
const roomsPerSecond = 200;
/** Listed, and compared with what is believed, within a tenth of a second. */
const roomsAtOnce = 20;
const roomsAtOnceMs = (roomsAtOnce / roomsPerSecond) * 1000;
const appendTimeoutMs = 5_000;
/** So many failures one after the other are an outage: each may have taken as long as a call may. */
const failuresInARow = 5;
/** What was found is repaired after so many calls that took long: rooms of a dead node take 2 s each. */
const slowCallMs = 1_000;
const slowCallsAtMost = 10;
/**
 * A room that did not answer for so long is taken over by a node that lives. LiveKit takes a node for dead after 5 s;
 * one that only stood still for some seconds goes on with its people, who would then be where nobody sees them.
 */
const silentForMs = 15_000;
/** From here on differences look like an outage of ours or of LiveKit's rather than lost webhooks. */
const massMinimum = 20;
const massShare = 0.3;

/** About half an hour at 15 s each. */
const sweepsPerRound = 120;

export interface SweepDependencies {
  readonly store: RoomStore;
  readonly log: EventLog;
  readonly livekit: RoomService;
  readonly clock: Clock;
  readonly metrics: WorkerMetrics;
  readonly logger: Logger;
  /** Ends a sweep between two looks: a large one must not hold up the process's end. */
  readonly signal: AbortSignal;
  /** Counts the sweeps, whichever process makes them. */
  readonly turn: number;
  readonly before: SweepState;
}

/** What one sweep leaves to the next. */
export interface SweepState {
  /** The room at which it gave up, to begin behind; '' where it came to the end. */
  readonly leftAt: string;
  /** The listed rooms that have not answered since they were last asked: since when, by the clock of durations. */
  readonly silentSinceMs: ReadonlyMap<string, number>;
}

export const beforeAnySweep: SweepState = { leftAt: '', silentSinceMs: new Map() };

/** One room as LiveKit has it, when it was asked for, and when it was heard. */
interface Look<P extends ListedSid = ListedSid> {
  readonly roomId: string;
  readonly listedAtMs: number;
  readonly nowMs: number;
  readonly room: LivekitRoom | null;
  readonly participants: readonly P[];
}

/** A look that does not agree with the projection about these: the room's sid, or people's. */
interface Difference<P extends ListedSid> extends Look<P> {
  readonly sids: ReadonlySet<string>;
}

/** What was found until a look came to the end or gave up. */
interface Looked<P extends ListedSid> extends Pick<SweepState, 'leftAt'> {
  readonly differing: readonly Difference<P>[];
}

const isThere = ({ state }: ListedSid): boolean => state !== 'DISCONNECTED';

/**
 * The sids that LiveKit's list names and the projection does not, or the other way round, or of which they say
 * otherwise whether others see it: no webhook tells of new rights. What was told of one since the list was asked for
 * excuses that one alone: in a busy room something is always new.
 */
const differingSids = (look: Look, believed: LiveRoom | undefined): Set<string> => {
  const { room, participants } = look;
  const sessions = believed?.sessions ?? [];
  const since = new Set(
    sessions.filter((session) => isHeardSince(session, look)).map(({ participantSid }) => participantSid),
  );
  if (room?.sid !== believed?.roomSid) {
    // Somebody came since into a life that the list does not know: it is newer than the list.
    if (since.size > 0) return new Set();
    return new Set([room?.sid, believed?.roomSid].filter((sid) => sid !== undefined));
  }
  const listed = new Map(participants.filter(isThere).map(({ sid, permission }) => [sid, permission?.hidden ?? false]));
  const known = new Map(sessions.map(({ participantSid, isHidden }) => [participantSid, isHidden]));
  const sids = new Set([...listed.keys(), ...known.keys()]).difference(since);
  return new Set([...sids].filter((sid) => listed.get(sid) !== known.get(sid)));
};

const differencesOf = <P extends ListedSid>(
  looks: readonly Look<P>[],
  believed: readonly LiveRoom[],
): Difference<P>[] => {
  const byRoom = new Map(believed.map((room) => [room.roomId, room]));
  return looks
    .map((look) => ({ ...look, sids: differingSids(look, byRoom.get(look.roomId)) }))
    .filter(({ sids }) => sids.size > 0);
};

/** Over after so many failures in a row, or so many slow calls: then LiveKit has an outage, and is asked no more. */
const createPatience = ({ clock, logger }: SweepDependencies) => {
  let failures = 0;
  let slowCalls = 0;
  return {
    isOver: (): boolean => failures >= failuresInARow || slowCalls >= slowCallsAtMost,
    /** Null where LiveKit failed. */
    ask: async <T>(rooms: readonly string[], call: () => Promise<T>): Promise<T | null> => {
      const askedAtMs = clock.elapsed();
      try {
        const answer = await call();
        failures = 0;
        return answer;
      } catch (error) {
        failures += 1;
        logger.warn({ rooms, err: error }, 'rooms could not be looked at');
        return null;
      } finally {
        if (clock.elapsed() - askedAtMs >= slowCallMs) slowCalls += 1;
      }
    },
  };
};

/** Some rooms at a time, no faster than LiveKit is to be asked about them. */
async function* paced(
  { clock, signal }: SweepDependencies,
  roomIds: readonly string[],
): AsyncGenerator<string[], void> {
  const startedAtMs = clock.now();
  for (let first = 0; first < roomIds.length; first += roomsAtOnce) {
    const aheadMs = (first / roomsPerSecond) * 1000 - (clock.now() - startedAtMs);
    // No longer than these take: the clock may have been set back.
    if (aheadMs > 0) await clock.delay(Math.min(aheadMs, roomsAtOnceMs), signal);
    yield roomIds.slice(first, first + roomsAtOnce);
  }
}

/**
 * Looks at rooms, and finds those that differ. They are listed again some at a time, right before their people are: of
 * a room that is gone since, LiveKit knows only after seconds. What is believed of these is read right after, so that
 * little arrives in between. What cannot be listed is left to the next sweep, or one failing call in ten would keep
 * every other room from being repaired; in an outage so is the rest.
 */
const lookAt = async <P extends ListedSid>(
  dependencies: SweepDependencies,
  roomIds: readonly string[],
  list: (room: LivekitRoom) => Promise<readonly P[] | null>,
): Promise<Looked<P>> => {
  const { store, livekit, clock, logger, signal } = dependencies;
  const patience = createPatience(dependencies);
  const differing: Difference<P>[] = [];
  for await (const some of paced(dependencies, roomIds)) {
    const listedAtMs = clock.now();
    const listed = await patience.ask(some, () => livekit.listRooms(some));
    const rooms = new Map(listed?.map((room) => [room.name, room]));
    const looks: Look<P>[] = [];
    let leftAt = some.at(-1) ?? '';
    for (const roomId of listed === null ? [] : some) {
      signal.throwIfAborted();
      const room = rooms.get(roomId) ?? null;
      const participants = room === null ? [] : await patience.ask([roomId], () => list(room));
      if (participants !== null) looks.push({ roomId, listedAtMs, nowMs: clock.now(), room, participants });
      leftAt = roomId;
      if (patience.isOver()) break;
    }
    if (looks.length > 0) differing.push(...differencesOf(looks, await store.readLiveRooms(some)));
    if (patience.isOver()) {
      logger.warn({ leftAt }, 'the rest of the rooms is left to the next sweep');
      return { differing, leftAt };
    }
  }
  return { differing, leftAt: '' };
};

/** Sids are random: those of a large room have their turns in as many sweeps. */
const hasTurn = ({ sid }: ListedSid, turn: number): boolean => {
  let hash = 0;
  for (let at = 0; at < sid.length; at += 1) hash = (hash * 31 + sid.charCodeAt(at)) % sweepsPerRound;
  return hash === turn % sweepsPerRound;
};

/**
 * The first look at the people of a room. That somebody's track is disguised is no difference, and no fact: the
 * question is asked that its webhook would have raised, had it not been lost. Everybody is asked about once in a round,
 * whatever was asked before: LiveKit may carry out late what it did not answer, and nothing tells of rights that it
 * gave back so.
 */
const listSids = async (
  { livekit, store, turn, clock }: SweepDependencies,
  room: LivekitRoom,
): Promise<readonly ListedSid[]> => {
  const people = await livekit.listSids(room);
  const ask = (cause: string, isToAskAbout: (person: ListedSid) => boolean): Promise<void> => {
    const identities = people.filter((each) => isPerson(each) && isToAskAbout(each)).map(({ identity }) => identity);
    return store.markIdentities(room.name, identities, { cause, causedAtMs: clock.now() });
  };
  await ask('disguised_track', ({ tracks }) => tracks.some(isDisguised));
  await ask('round', (each) => hasTurn(each, turn));
  return people;
};

const isUnavailable = (error: unknown): boolean => error instanceof LivekitError && error.kind === 'unavailable';

/**
 * The first look, room by room. LiveKit goes on listing the rooms of a node that has died, and nobody answers for them
 * until a node that lives takes them over: one that did not answer twice, the second time long after the first.
 */
const startListing = (dependencies: SweepDependencies, listed: ReadonlySet<string>) => {
  const { livekit, clock, before } = dependencies;
  const silentSinceMs = new Map([...before.silentSinceMs].filter(([roomId]) => listed.has(roomId)));

  const isGone = async (roomId: string): Promise<boolean> => {
    const nowMs = clock.elapsed();
    const sinceMs = silentSinceMs.get(roomId) ?? nowMs;
    silentSinceMs.set(roomId, sinceMs);
    return nowMs - sinceMs >= silentForMs && (await livekit.reviveRoom(roomId));
  };
  const list = async (room: LivekitRoom): Promise<readonly ListedSid[]> => {
    const people = await listSids(dependencies, room).catch(async (error: unknown) => {
      if (!isUnavailable(error) || !(await isGone(room.name))) throw error;
      return listSids(dependencies, room);
    });
    silentSinceMs.delete(room.name);
    return people;
  };
  return { list, silentSinceMs };
};

/** Null where the room has been replaced or ended meanwhile: these may be the people of its next life. */
const listPeople = async (
  { livekit }: SweepDependencies,
  { name, sid }: LivekitRoom,
): Promise<readonly ListedParticipant[] | null> => {
  const people = await livekit.listParticipants(name);
  const [room] = await livekit.listRooms([name]);
  return room?.sid === sid ? people : null;
};

/** At everything about the people: what is found goes into the log. Of what differed, what still does. */
const lookAgain = async (
  dependencies: SweepDependencies,
  before: Looked<ListedSid>,
): Promise<Looked<ListedParticipant>> => {
  const sidsBefore = new Map(before.differing.map(({ roomId, sids }) => [roomId, sids]));
  const { differing, leftAt } = await lookAt(dependencies, [...sidsBefore.keys()], (room) =>
    listPeople(dependencies, room),
  );
  const isStill = ({ roomId, sids }: Difference<ListedParticipant>): boolean =>
    !sids.isDisjointFrom(sidsBefore.get(roomId) ?? new Set());
  return { differing: differing.filter(isStill), leftAt: leftAt || before.leftAt };
};

const toRecord = (look: Look<ListedParticipant>): NewRecord => {
  const observed: z.input<typeof LivekitObserved> = {
    roomName: look.roomId,
    listedAtMs: look.listedAtMs,
    room: look.room,
    participants: look.participants.filter(isThere).map(listedForLog),
  };
  const about = {
    id: randomUUID(),
    source: 'sweep',
    type: observedType,
    roomName: look.roomId,
    timeMs: look.listedAtMs,
    traceparent: undefined,
  } as const;
  return toLivekitRecord(about, observed);
};

/**
 * Asks what the record would have asked: about everybody who differs; where the room's life does, about everybody and
 * the room. Who is inside is believed by webhooks alone in such a room, but nobody stays whose removal holds.
 */
const askAboutDiffering = async (
  { store, clock }: SweepDependencies,
  { roomId, room, participants, sids }: Difference<ListedParticipant>,
): Promise<number> => {
  const isNewLife = room !== null && sids.has(room.sid);
  const there = participants.filter((each) => isThere(each) && (isNewLife || sids.has(each.sid)));
  const identities = [...(isNewLife ? [''] : []), ...there.map(({ identity }) => identity)];
  await store.markIdentities(roomId, identities, { cause: 'observed', causedAtMs: clock.now() });
  return identities.length;
};

/** One room that does not fit into the log must not keep the others from being repaired. */
const appendEach = async (
  dependencies: SweepDependencies,
  differing: readonly Difference<ListedParticipant>[],
): Promise<void> => {
  const { log, logger } = dependencies;
  await Promise.all(
    differing.map(async (look) => {
      try {
        await log.append([toRecord(look)], appendTimeoutMs);
      } catch (error) {
        if (!(error instanceof RecordTooLargeError)) throw error;
        const asked = await askAboutDiffering(dependencies, look);
        logger.error(
          { room: look.roomId, participants: look.participants.length, asked },
          'difference does not fit into the log',
        );
      }
    }),
  );
};

/** In one order for all sweeps, so that one that gave up is gone on with. */
const beginningBehind = (place: string, roomIds: Iterable<string>): string[] => {
  const sorted = [...new Set(roomIds)].sort();
  return [...sorted.filter((roomId) => roomId > place), ...sorted.filter((roomId) => roomId <= place)];
};

export interface Swept extends SweepState {
  /** In how many rooms presence differed. */
  readonly differences: number;
}

/**
 * One sweep: what LiveKit lists against what is believed. Only differences that two looks a second apart agree on go
 * into the log; many at once ask for a third look and raise an alarm, and are then applied all the same.
 */
export const sweepOnce = async (dependencies: SweepDependencies): Promise<Swept> => {
  const { metrics, logger, store, livekit, clock, signal, before } = dependencies;
  // Also the rooms that are believed to be live and that LiveKit does not list.
  const listed = (await livekit.listRooms()).map(({ name }) => name);
  const believed = await store.readLiveRoomIds();
  const { list, silentSinceMs } = startListing(dependencies, new Set(listed));
  const suspected = await lookAt(dependencies, beginningBehind(before.leftAt, [...listed, ...believed]), list);
  const end = ({ differing, leftAt }: Looked<ListedSid>): Swept => ({
    differences: differing.length,
    leftAt,
    silentSinceMs,
  });
  if (suspected.differing.length === 0) return end(suspected);
  await clock.delay(secondLookAfterMs, signal);
  let found = await lookAgain(dependencies, suspected);
  const { length: count } = found.differing;
  if (count >= massMinimum && count > massShare * believed.length) {
    metrics.sweepAlarms.inc();
    logger.error({ rooms: count }, 'many rooms differ from LiveKit at once');
    await clock.delay(secondLookAfterMs, signal);
    found = await lookAgain(dependencies, found);
  }
  const { differing } = found;
  if (differing.length === 0) return end(found);
  await appendEach(dependencies, differing);
  metrics.sweepDifferences.inc(differing.length);
  logger.warn({ rooms: differing.length }, 'presence differed from LiveKit');
  return end(found);
};

/** Sweeps while this process holds the duty. */
export const startSweep = (
  settings: Omit<SweepDependencies, 'signal' | 'turn' | 'before'> & { readonly intervalMs: number },
): { readonly stop: () => Promise<void> } => {
  const { store, clock, intervalMs, metrics, logger } = settings;
  const holder = randomUUID();
  const stopping = new AbortController();
  const { signal } = stopping;
  let before = beforeAnySweep;
  /**
   * The first by the time of day, so that no restart begins the round anew; then one with each sweep. One that fails
   * has had its turn, too: as a rule everybody was asked about before the log refused what was found.
   */
  let turn: number | undefined;
  const { hold, release } = createDuty(
    () => store.holdDuty(dutyName, holder, (2 * intervalMs) / 1000),
    () => store.releaseDuty(dutyName, holder),
  );

  const sweep = async (): Promise<void> => {
    // Kept also through a sweep that takes longer than the interval; where it is lost, two of them say the same.
    const keeping = setInterval(() => void hold().catch(() => {}), intervalMs);
    try {
      turn = turn === undefined ? Math.floor(clock.now() / intervalMs) : turn + 1;
      const dependencies = { ...settings, signal, turn, before };
      before = await withSpan('sweep', { isRoot: true }, () => sweepOnce(dependencies));
      metrics.sweeps.inc({ outcome: 'completed' });
    } finally {
      clearInterval(keeping);
    }
  };

  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      const startedAtMs = clock.now();
      try {
        if (await hold()) await sweep();
        else {
          before = beforeAnySweep;
          turn = undefined;
        }
      } catch (error) {
        // Rooms count as silent by what was asked without a gap.
        before = { ...beforeAnySweep, leftAt: before.leftAt };
        if (signal.aborted) break;
        metrics.sweeps.inc({ outcome: 'failed' });
        logger.warn({ err: error }, 'sweep failed');
      }
      // From start to start: what a look has just missed waits for the next one, and no longer.
      const restMs = intervalMs - (clock.now() - startedAtMs);
      await clock.delay(Math.min(Math.max(restMs, leastPauseMs), intervalMs), signal).catch(() => {});
    }
    await release().catch(() => {});
  };

  const running = run();
  return {
    stop: () => {
      stopping.abort();
      return running;
    },
  };
};
