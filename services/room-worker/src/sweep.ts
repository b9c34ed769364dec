import { randomUUID } from 'node:crypto';
import { type LivekitObserved, type LivekitRoom, observedType } from '@realtime-service/contracts';
import { type EventLog, type NewRecord, RecordTooLargeError } from '@realtime-service/event-log';
import type { ListedParticipant, ListedSid, RoomService } from '@realtime-service/livekit';
import type { LivePresence, RoomStore } from '@realtime-service/room-store';
import { type Logger, withSpan } from '@realtime-service/telemetry';
import { type Clock, systemClock } from './clock.ts';
import { participantForLog, toLivekitRecord } from './livekit-record.ts';
import type { WorkerMetrics } from './metrics.ts';

const dutyName = 'sweep';
/** A room that differs is looked at again after so long: webhooks may be on their way. */
const secondLookAfterMs = 1_000;
/** Between two sweeps that take longer than the interval. */
const leastPauseMs = 1_000;
/** LiveKit serves joins beside us. */
const roomsPerSecond = 200;
/** Looked at within a tenth of a second. */
const roomsAtOnce = 20;
const appendTimeoutMs = 5_000;
/** So many failures one after the other are an outage: each may have taken as long as a call may. */
const failuresInARow = 5;
/** From here on differences look like an outage of ours or of LiveKit's rather than lost webhooks. */
const massMinimum = 20;
const massShare = 0.3;

export interface SweepDependencies {
  readonly store: RoomStore;
  readonly log: EventLog;
  readonly livekit: RoomService;
  /** The system's unless said. */
  readonly clock?: Clock;
  readonly metrics: WorkerMetrics;
  readonly logger: Logger;
  /** Ends a sweep between two looks: a large one must not hold up the process's end. */
  readonly signal: AbortSignal;
}

/** One room as LiveKit has it, and when it was asked. */
interface Look<P extends ListedSid = ListedSid> {
  readonly roomId: string;
  readonly listedAtMs: number;
  readonly room: LivekitRoom | null;
  readonly participants: readonly P[];
}

interface Believed {
  readonly life: LivePresence['lives'][number] | undefined;
  readonly sessions: LivePresence['sessions'];
}

const isThere = ({ state }: ListedSid): boolean => state !== 'DISCONNECTED';

/** Whether LiveKit's list and the projection name different lives or sids; a fact received since the look excuses it. */
const differs = (look: Look, { life, sessions }: Believed): boolean => {
  if (sessions.some(({ lastFactAtMs }) => lastFactAtMs >= look.listedAtMs)) return false;
  if (look.room?.sid !== life?.roomSid) return true;
  const listed = new Set(look.participants.filter(isThere).map(({ sid }) => sid));
  const believed = sessions.filter(({ roomSid }) => roomSid === look.room?.sid);
  return listed.size !== believed.length || believed.some(({ participantSid }) => !listed.has(participantSid));
};

const believedIn = async (store: RoomStore, roomIds: readonly string[] | null): Promise<Map<string, Believed>> => {
  const { lives, sessions } = await store.readLivePresence(roomIds);
  const byRoom = Map.groupBy(sessions, ({ roomId }) => roomId);
  const lifeOf = new Map(lives.map((life) => [life.roomId, life]));
  const rooms = new Set([...byRoom.keys(), ...lifeOf.keys()]);
  return new Map(
    [...rooms].map((roomId) => [roomId, { life: lifeOf.get(roomId), sessions: byRoom.get(roomId) ?? [] }]),
  );
};

const nothing: Believed = { life: undefined, sessions: [] };

/**
 * Looks at rooms at a bounded rate. They are listed again some at a time, right before their people are: of a room that
 * is gone since, LiveKit knows only after seconds. What cannot be listed is left to the next sweep, or one failing call in
 * ten would keep every other room from being repaired.
 */
const lookAt = async <P extends ListedSid>(
  { livekit, clock = systemClock, logger, signal }: SweepDependencies,
  roomIds: readonly string[],
  list: (room: LivekitRoom) => Promise<readonly P[]>,
): Promise<Look<P>[]> => {
  const startedAtMs = clock.now();
  const looks: Look<P>[] = [];
  let failures = 0;
  /** Null where LiveKit failed. */
  const ask = async <T>(rooms: readonly string[], call: () => Promise<T>): Promise<T | null> => {
    try {
      const answer = await call();
      failures = 0;
      return answer;
    } catch (error) {
      failures += 1;
      if (failures === failuresInARow) throw error;
      logger.warn({ rooms, err: error }, 'rooms could not be looked at');
      return null;
    }
  };
  for (let first = 0; first < roomIds.length; first += roomsAtOnce) {
    const some = roomIds.slice(first, first + roomsAtOnce);
    const listedAtMs = clock.now();
    const listed = await ask(some, () => livekit.listRooms(some));
    if (listed === null) continue;
    const rooms = new Map(listed.map((room) => [room.name, room]));
    for (const roomId of some) {
      signal.throwIfAborted();
      const room = rooms.get(roomId) ?? null;
      const participants = room === null ? [] : await ask([roomId], () => list(room));
      if (participants === null) continue;
      looks.push({ roomId, listedAtMs, room, participants });
      const aheadMs = (looks.length / roomsPerSecond) * 1000 - (clock.now() - startedAtMs);
      if (aheadMs > 50) await clock.delay(aheadMs, signal);
    }
  }
  return looks;
};

const differingFrom = <L extends Look>(looks: readonly L[], believed: ReadonlyMap<string, Believed>): L[] =>
  looks.filter((look) => differs(look, believed.get(look.roomId) ?? nothing));

/** Rooms that LiveKit lists, and rooms that are believed to be live and are not listed. */
const findDiffering = async (dependencies: SweepDependencies): Promise<string[]> => {
  const { store, livekit, clock = systemClock } = dependencies;
  const listedAtMs = clock.now();
  const listed = new Set((await livekit.listRooms()).map(({ name }) => name));
  const looks = await lookAt(dependencies, [...listed], livekit.listSids);
  // Read after the looks: a webhook that arrived meanwhile is part of what is believed.
  const believed = await believedIn(store, null);
  const absent = [...believed.keys()]
    .filter((roomId) => !listed.has(roomId))
    .map((roomId) => ({ roomId, listedAtMs, room: null, participants: [] }));
  return differingFrom([...looks, ...absent], believed).map(({ roomId }) => roomId);
};

/** At everything about the people: what is found goes into the log. */
const lookAgain = async (
  dependencies: SweepDependencies,
  roomIds: readonly string[],
): Promise<Look<ListedParticipant>[]> => {
  const { store, livekit } = dependencies;
  const looks = await lookAt(dependencies, roomIds, ({ name }) => livekit.listParticipants(name));
  return differingFrom(looks, await believedIn(store, roomIds));
};

const toRecord = (look: Look<ListedParticipant>): NewRecord => {
  const observed: LivekitObserved = {
    roomName: look.roomId,
    listedAtMs: look.listedAtMs,
    room: look.room,
    participants: look.participants
      .filter(isThere)
      .map(({ tracks: _, permission, ...participant }) =>
        participantForLog({ ...participant, permission: { hidden: permission.hidden } }),
      ),
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

/** One room that does not fit into the log must not keep the others from being repaired. */
const appendEach = async (
  { log, logger }: SweepDependencies,
  differing: readonly Look<ListedParticipant>[],
): Promise<void> => {
  await Promise.all(
    differing.map(async (look) => {
      try {
        await log.append([toRecord(look)], appendTimeoutMs);
      } catch (error) {
        if (!(error instanceof RecordTooLargeError)) throw error;
        logger.error(
          { room: look.roomId, participants: look.participants.length },
          'difference does not fit into the log',
        );
      }
    }),
  );
};

/**
 * One sweep: what LiveKit lists against what is believed. Only differences that two looks a second apart agree on go
 * into the log; many at once ask for a third look and raise an alarm, and are then applied all the same.
 */
export const sweepOnce = async (dependencies: SweepDependencies): Promise<number> => {
  const { metrics, logger, store, clock = systemClock, signal } = dependencies;
  const suspected = await findDiffering(dependencies);
  if (suspected.length === 0) return 0;
  await clock.delay(secondLookAfterMs, signal);
  let differing = await lookAgain(dependencies, suspected);
  const believed = await believedIn(store, null);
  if (differing.length >= massMinimum && differing.length > massShare * believed.size) {
    metrics.sweepAlarms.inc();
    logger.error({ rooms: differing.length }, 'many rooms differ from LiveKit at once');
    await clock.delay(secondLookAfterMs, signal);
    differing = await lookAgain(
      dependencies,
      differing.map(({ roomId }) => roomId),
    );
  }
  if (differing.length === 0) return 0;
  await appendEach(dependencies, differing);
  metrics.sweepDifferences.inc(differing.length);
  logger.warn({ rooms: differing.length }, 'presence differed from LiveKit');
  return differing.length;
};

/** Sweeps while this process holds the duty. */
export const startSweep = (
  settings: Omit<SweepDependencies, 'signal'> & { readonly intervalMs: number },
): { readonly stop: () => Promise<void> } => {
  const { store, clock = systemClock, intervalMs, logger } = settings;
  const holder = randomUUID();
  const stopping = new AbortController();
  const { signal } = stopping;
  const hold = (): Promise<boolean> => store.holdDuty(dutyName, holder, (2 * intervalMs) / 1000);

  const sweep = async (): Promise<void> => {
    // Kept also through a sweep that takes longer than the interval; where it is lost, two of them say the same.
    const keeping = setInterval(() => void hold().catch(() => {}), intervalMs);
    try {
      await withSpan('sweep', { isRoot: true }, () => sweepOnce({ ...settings, signal }));
    } finally {
      clearInterval(keeping);
    }
  };

  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      const startedAtMs = clock.now();
      try {
        if (await hold()) await sweep();
      } catch (error) {
        if (!signal.aborted) logger.warn({ err: error }, 'sweep failed');
      }
      // From start to start: what a look has just missed waits for the next one, and no longer.
      const restMs = intervalMs - (clock.now() - startedAtMs);
      await clock.delay(Math.min(Math.max(restMs, leastPauseMs), intervalMs), signal).catch(() => {});
    }
    await store.releaseDuty(dutyName, holder).catch(() => {});
  };

  const running = run();
  return {
    stop: () => {
      stopping.abort();
      return running;
    },
  };
};
