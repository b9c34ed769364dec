import {
  type Allowed,
  authorise,
  type Denied,
  identityOf,
  needsSeat,
  type RoomFacts,
  unknownRoom,
  type Verdict,
} from '@realtime-service/room-model';
import type { FactsAnswer, FactsQuery, SeatAnswer, SeatRequest } from '@realtime-service/room-store';
import { type Moment, msSince, thisMoment } from '@realtime-service/telemetry';
import type { Caller } from '../authenticate.ts';
import { ProblemError } from '../problem.ts';
import { type AskedJoin, faultsOfChoice } from './join-request.ts';

/** Where decisions get their facts. Both fail when there is no answer within a few seconds. */
export interface EntryStore {
  readonly readFacts: (query: FactsQuery) => Promise<FactsAnswer>;
  /** Reads facts and seats, decides and takes the seat as one step. */
  readonly takeSeat: (request: SeatRequest, decide: (answer: FactsAnswer) => Verdict) => Promise<SeatAnswer>;
}

/** Who wants to enter which room, at the desk or at the door. */
export interface Entrant extends FactsQuery {
  readonly deviceId: string | null;
  readonly takeOver: boolean;
  /** When the login ends by policy, milliseconds since the epoch. */
  readonly loginEndsAtMs: number | null;
}

/** Somebody may enter, now. */
export interface Admission {
  readonly room: RoomFacts;
  readonly identity: string;
  readonly verdict: Allowed;
  readonly isRoomLive: boolean;
  /** When the facts were asked for. */
  readonly askedAt: Moment;
}

/** Longer than the store and LiveKit may take together: what is later comes of a process that stood still. */
const countsForMs = 5_000;

/** @throws {ProblemError} 503 where a token, or a fact, would rest on what was read before this process stood still */
export const assertFresh = ({ askedAt }: Pick<Admission, 'askedAt'>): void => {
  if (msSince(askedAt) > countsForMs) throw new ProblemError('store_unavailable', { reason: 'decision_too_old' });
};

const roomFullRetryAfterSeconds = 5;

/** @throws {ProblemError} 503 when the store fails, does not answer in time, or has gone back */
export const fromStore = <T>(work: Promise<T>): Promise<T> =>
  work.catch((cause: unknown) => {
    if (cause instanceof ProblemError) throw cause;
    throw new ProblemError('store_unavailable', { cause });
  });

const refusalOf = ({ code, reason, opensAtMs }: Denied, nowMs: number): ProblemError =>
  new ProblemError(code, {
    reason,
    ...(opensAtMs !== null && { opensAtMs, retryAfterSeconds: (opensAtMs - nowMs) / 1000 }),
    ...(code === 'room_full' && { retryAfterSeconds: roomFullRetryAfterSeconds }),
  });

/** @throws {ProblemError} where the verdict is no */
export const allowedBy = (verdict: Verdict, nowMs: number): Allowed => {
  if (verdict.kind === 'deny') throw refusalOf(verdict, nowMs);
  return verdict;
};

/**
 * Facts, verdict, and the seat where the room counts them; `check` may object before one is taken, and to what has
 * changed until it was.
 * @throws {ProblemError} with the verdict's code, 503 without facts
 */
export const decideEntry = async (
  store: EntryStore,
  entrant: Entrant,
  check?: (admission: Admission) => void,
): Promise<Admission> => {
  const { roomId, userId, deviceId, takeOver, loginEndsAtMs } = entrant;
  const askedAt = thisMoment();
  const first = await fromStore(store.readFacts(entrant));
  const { facts, isRoomLive } = first;
  const identity = identityOf(facts.room ?? unknownRoom(roomId), userId, deviceId);
  const decide = (answer: FactsAnswer): Verdict =>
    authorise(answer.facts, { purpose: 'enter', takeOver, loginEndsAtMs }, answer.nowMs);
  const verdict = allowedBy(decide(first), first.nowMs);
  // Nobody is allowed into a room that is not there.
  const room = facts.room as RoomFacts;
  const admission = { room, identity, verdict, isRoomLive, askedAt };
  check?.(admission);
  if (!needsSeat(room)) return admission;

  const askedAgainAt = thisMoment();
  const seated = await fromStore(store.takeSeat({ ...entrant, identity }, decide));
  const { answer } = seated;
  const taken = {
    ...admission,
    room: answer.facts.room as RoomFacts,
    verdict: allowedBy(seated.verdict, answer.nowMs),
    askedAt: askedAgainAt,
  };
  check?.(taken);
  return taken;
};

/**
 * Decides a join as it was asked for.
 * @throws {ProblemError} as `decideEntry`, and 422 for what the caller may not choose
 */
export const decideJoin = (store: EntryStore, caller: Caller, asked: AskedJoin): Promise<Admission> => {
  const entrant = {
    roomId: asked.roomId,
    userId: caller.userId,
    loginId: caller.loginId,
    loginEndsAtMs: caller.loginEndsAtMs,
    deviceId: asked.device_id ?? null,
    takeOver: asked.take_over ?? false,
  };
  return decideEntry(store, entrant, ({ identity, room, verdict }) => {
    const { settings } = room;
    const faults = faultsOfChoice(asked, { identity, settings, permissions: verdict.permissions });
    if (faults.length > 0) throw new ProblemError('invalid_request', { reason: 'choice', faults });
  });
};
