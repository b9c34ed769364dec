import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { isDisguised, type Notice } from '@realtime-service/contracts';
import { LogUnavailableError } from '@realtime-service/event-log';
import { type ListedParticipant, LivekitError, type RoomService } from '@realtime-service/livekit';
import {
  type Allowed,
  authorise,
  endOf,
  identityOf,
  isIdentityOf,
  isPerson,
  isSamePermission,
  loginEndOf,
  type Permissions,
  replacedBy,
  sessionOwner,
  signedOf,
  toJoinPermissions,
  toParticipantPermission,
  type Verdict,
} from '@realtime-service/room-model';
import type {
  Announcement,
  ClaimedEdge,
  FactsAnswer,
  Mark,
  RoomStore,
  SessionOwner,
} from '@realtime-service/room-store';
import {
  type Logger,
  linkActiveSpan,
  type Moment,
  msSince,
  thisMoment,
  withRemoteParent,
  withSpan,
} from '@realtime-service/telemetry';
import type { Clock } from './clock.ts';
import type { LaneGate } from './lane-gate.ts';
import type { WorkerMetrics } from './metrics.ts';
import { notify } from './notify.ts';

const claimSeconds = 15;
/**
 * What is not begun by then is left to the next claim. Each call is bounded, so what is begun has ended before another
 * can claim the question, and undoes nothing that the other did on newer facts.
 */
const beginWithinMs = 10_000;
const firstRetryMs = 250;
const maxRetryMs = 10_000;
/** A key that LiveKit refuses will not be right a moment later; the alarm is the metric. */
const unauthorisedRetryMs = 30_000;
const notCaughtUpRetryMs = 500;
/** An order lives for a minute: its tries keep this distance, in steps of the backoff. */
const edgeRetryAttempts = 3;

export interface EnforcementDependencies {
  readonly store: RoomStore;
  readonly livekit: RoomService;
  readonly gate: LaneGate;
  readonly clock: Clock;
  /** What to do with rooms that LiveKit has and the domain does not. */
  readonly unknownRooms: 'observe' | 'close';
  /** How long before a room's scheduled end people are told of it; 0: not before it ends. */
  readonly closingNoticeMs: number;
  readonly metrics: WorkerMetrics;
  readonly logger: Logger;
}

interface Claim {
  readonly claimedAt: Moment;
}
interface ClaimedMark extends Mark, Claim {}

interface Settled {
  readonly kind: 'settled';
  readonly action: string;
  readonly reason: string;
  readonly askAgainAtMs: number | null;
  readonly announcement: Announcement | null;
}

/** What came of a question. */
type Answer = Settled | Later;

interface Later {
  readonly kind: 'later';
  readonly delayMs: number;
  /** Whether this was a try: the next one is made later then. */
  readonly isTry: boolean;
}

const settled = (action: string, reason = '', askAgainAtMs: number | null = null): Settled => ({
  kind: 'settled',
  action,
  reason,
  askAgainAtMs,
  announcement: null,
});

/** Full jitter above half, so that many retries do not meet again. */
const retryDelayMs = (attempts: number, { random }: Clock): number =>
  Math.min(firstRetryMs * 2 ** Math.min(attempts - 1, 10), maxRetryMs) * (0.5 + random() / 2);

const delayAfter = (error: unknown, attempts: number, clock: Clock): number => {
  const delayMs = retryDelayMs(attempts, clock);
  if (!(error instanceof LivekitError)) return delayMs;
  if (error.kind === 'unauthorised') return unauthorisedRetryMs;
  return Math.max(error.retryAfterMs ?? 0, delayMs);
};

/** What kept a question or an order from being answered: LiveKit, by its answer, the log, or else the database. */
const failureOf = (error: unknown): LivekitError['kind'] | 'log' | 'store' => {
  if (error instanceof LivekitError) return error.kind;
  return error instanceof LogUnavailableError ? 'log' : 'store';
};

interface Read extends FactsAnswer {
  /** By where these facts stood themselves: a failover or a restore may have come in after the look at the lanes. */
  readonly areFresh: () => Promise<boolean>;
}

const readOne = async (
  { store, gate }: EnforcementDependencies,
  { roomId, userId, loginId = null }: { roomId: string; userId?: string; loginId?: string | null },
): Promise<Read> => {
  const compare = gate.compare();
  let standing: readonly bigint[] = [];
  const [answer] = await store.readFacts([{ roomId, userId: userId ?? '', loginId }], (nextOffsets) => {
    standing = nextOffsets;
  });
  if (answer === undefined) throw new Error('facts were not answered');
  const keys = userId === undefined ? [roomId] : [roomId, userId];
  return { ...answer, areFresh: () => compare(keys, standing) };
};

const later: Answer = { kind: 'later', delayMs: notCaughtUpRetryMs, isTry: false };

/**
 * LiveKit does not find whom or what is believed to be there. Where two of its nodes have a room, either of them
 * answers; and what their store has lost is not found for a while. So it is asked again, until a webhook or the sweep
 * says otherwise.
 */
const notFound = ({ clock }: EnforcementDependencies, { attempts }: Mark): Answer => ({
  kind: 'later',
  delayMs: retryDelayMs(attempts, clock),
  isTry: true,
});

/** The next moment at which a schedule has something to do: to tell of the end, and then to bring it about. */
const nextMoment = (closesAtMs: number, closingNoticeMs: number, nowMs: number): number => {
  const noticeAtMs = closesAtMs - closingNoticeMs;
  return nowMs < noticeAtMs ? noticeAtMs : closesAtMs;
};

/** The facts about a room, read when they are fresh enough for what they say; null where they are not yet. */
const readRoom = async (dependencies: EnforcementDependencies, roomId: string): Promise<Read | null> => {
  const answer = await readOne(dependencies, { roomId });
  const { room } = answer.facts;
  if (room !== null && endOf(room, answer.nowMs) !== 'schedule_over') return answer;
  // Read again: only what is absent after the lane was seen caught up is absent, and so is that an end was put off.
  return (await dependencies.gate.isCaughtUp([roomId])) ? readOne(dependencies, { roomId }) : null;
};

/** Ends a room in one call. */
const endRoom = async (
  dependencies: EnforcementDependencies,
  mark: ClaimedMark,
  { facts: { room }, isRoomLive, areFresh }: Read,
  end: 'unknown_room' | 'room_closed' | 'schedule_over',
): Promise<Answer> => {
  const { livekit } = dependencies;
  const { roomId } = mark;
  // A closed room stays closed.
  if (end !== 'room_closed' && !(await areFresh())) return later;
  assertInTime(dependencies, mark);
  // Also of an end by schedule: one that is moved to now was not told of before.
  const code = end === 'unknown_room' ? 'room_not_found' : 'room_closed';
  if (isRoomLive)
    await notify(dependencies, { roomId }, { type: 'removed', code, ...said(room?.closingReason ?? null) });
  assertInTime(dependencies, mark);
  if (await livekit.deleteRoom(roomId)) return settled('room_deleted', end);
  return isRoomLive ? notFound(dependencies, mark) : settled('absent', end);
};

/**
 * Asks about every identity in a room that goes on. The question about a live one with a schedule is kept until the
 * schedule has something to do.
 */
const askAboutEach = async (
  dependencies: EnforcementDependencies,
  mark: ClaimedMark,
  closesAtMs: number | null,
  { isRoomLive, nowMs }: FactsAnswer,
): Promise<Answer> => {
  const { store, livekit, closingNoticeMs } = dependencies;
  const { roomId } = mark;
  // Who they are is all that is asked: to read the rest of five thousand holds the process up for a fifth of a second.
  const [listed] = await livekit.listRooms([roomId]);
  if (listed === undefined && isRoomLive) return notFound(dependencies, mark);
  const participants = listed === undefined ? [] : await livekit.listSids(listed);
  await store.markIdentities(
    roomId,
    participants.map(({ identity }) => identity),
    mark,
  );
  if (closesAtMs === null || !isRoomLive) return settled('asked_each');
  if (participants.length > 0 && closesAtMs - nowMs <= closingNoticeMs)
    await notify(dependencies, { roomId }, { type: 'closing', closesAt: new Date(closesAtMs).toISOString() });
  return settled('asked_each', '', nextMoment(closesAtMs, closingNoticeMs, nowMs));
};

/** Makes LiveKit agree about one room: one that is over ends, of others every identity is asked about. */
const answerRoom = async (dependencies: EnforcementDependencies, mark: ClaimedMark): Promise<Answer> => {
  const answer = await readRoom(dependencies, mark.roomId);
  if (answer === null) return later;
  const { room } = answer.facts;
  if (room === null) {
    if (dependencies.unknownRooms === 'observe') return settled('observed', 'unknown_room');
    return endRoom(dependencies, mark, answer, 'unknown_room');
  }
  const end = endOf(room, answer.nowMs);
  if (end !== null) return endRoom(dependencies, mark, answer, end);
  return askAboutEach(dependencies, mark, room.closesAtMs, answer);
};

const said = (reason: string | null) => (reason === null ? {} : { reason });

interface Why {
  readonly code: Extract<Notice, { type: 'removed' }>['code'];
  readonly message: string | null;
}

interface Present {
  readonly roomId: string;
  readonly identity: string;
  readonly participantSid: string;
}

const presentOf = ({ roomId, identity }: Mark, { sid }: ListedParticipant): Present => ({
  roomId,
  identity,
  participantSid: sid,
});

/**
 * LiveKit looks into a store of its own for whom it is told to remove or to change. Somebody who came anew while the
 * earlier session was ending is missing there until media are up, and is inside all the same.
 * @throws {LivekitError} where this session is still there
 */
const assertGone = async (
  { livekit }: EnforcementDependencies,
  { roomId, identity, participantSid }: Present,
): Promise<void> => {
  const present = await livekit.getParticipant(roomId, identity);
  if (present?.sid === participantSid)
    throw new LivekitError('LiveKit does not find somebody whom it lists', { kind: 'unavailable' });
};

/** No client does so by itself: it gets around what somebody may publish. */
const disguise: Why = { code: 'kicked', message: 'a track is not of the kind that its source says' };

/** LiveKit finds nobody by this identity. */
const answerAbsent = async (dependencies: EnforcementDependencies, mark: ClaimedMark): Promise<Answer> =>
  (await dependencies.store.isInside(mark)) ? notFound(dependencies, mark) : settled('absent');

const assertInTime = ({ clock }: EnforcementDependencies, { claimedAt }: Claim): void => {
  if (msSince(claimedAt, clock) > beginWithinMs) throw new Error('the answer was found too late to act on it');
};

/** False where LiveKit does not find them any more. */
const remove = async (
  dependencies: EnforcementDependencies,
  claim: Claim,
  whom: Present,
  { code, message }: Why,
): Promise<boolean> => {
  await notify(dependencies, whom, { type: 'removed', code, ...said(message) });
  // A process that stood still meanwhile would remove whoever is here by then.
  assertInTime(dependencies, claim);
  const isRemoved = await dependencies.livekit.removeParticipant(whom.roomId, whom.identity);
  if (!isRemoved) await assertGone(dependencies, whom);
  return isRemoved;
};

/** Somebody whom LiveKit lists, and whose session that is. */
interface Owned extends ListedParticipant {
  readonly owner: SessionOwner;
}

/**
 * Whose session it is: as its attributes say, where the desk may have signed them for this identity. They are others'
 * where somebody lets clients write their own; then it is whose it was when it began.
 */
const ownedBy = async (
  { store }: EnforcementDependencies,
  roomId: string,
  listed: ListedParticipant,
): Promise<Owned> => {
  const { identity, sid } = listed;
  const { userId, deviceId, loginId } = signedOf(listed);
  const signed = { userId, deviceId, loginId };
  if (userId !== null && isIdentityOf(identity, { userId, deviceId })) return { ...listed, owner: signed };
  const known = await store.readSessionOwner({ roomId, identity, participantSid: sid });
  return { ...listed, owner: known ?? signed };
};

/** Others are told nothing of whom they do not see. */
const announcementOf = ({ sid, identity, owner }: Owned, permissions: Permissions): Announcement | null => {
  if (permissions.hidden) return null;
  return {
    eventId: `participant.permissions_applied:${sid}:${randomUUID()}`,
    data: { ...sessionOwner({ participantSid: sid, identity, ...owner }), permissions: toJoinPermissions(permissions) },
  };
};

/** Sees to it that somebody who may stay has just the rights of today, and that others are told of them. */
const agree = async (
  dependencies: EnforcementDependencies,
  mark: ClaimedMark,
  present: Owned,
  { permissions, changesAtMs }: Allowed,
): Promise<Answer> => {
  const { store, livekit } = dependencies;
  const wanted = toParticipantPermission(permissions);
  // What was noted by an earlier claim may have been done, or done and overtaken.
  const noted = mark.announcement?.data.participantSid === present.sid ? mark.announcement : null;
  const isAgreed = isSamePermission(wanted, present.permission);
  if (isAgreed && noted === null) return settled('agreed', '', changesAtMs);
  const rights = announcementOf(present, permissions);
  const isNoted = isDeepStrictEqual(noted?.data.permissions, rights?.data.permissions);
  const announcement = isNoted ? noted : rights;
  if (isAgreed) return { ...settled('agreed', '', changesAtMs), announcement };
  if (announcement !== null && !(await store.noteAnnouncement(mark, announcement)))
    throw new Error('the claim ended before LiveKit was asked');
  assertInTime(dependencies, mark);
  if (!(await livekit.setPermission(mark.roomId, mark.identity, wanted))) {
    await assertGone(dependencies, presentOf(mark, present));
    return answerAbsent(dependencies, mark);
  }
  return { ...settled('permissions_set', '', changesAtMs), announcement };
};

/** Carries out a verdict about somebody who is inside. */
const enforce = async (
  dependencies: EnforcementDependencies,
  mark: ClaimedMark,
  present: Owned,
  verdict: Verdict,
): Promise<Answer> => {
  assertInTime(dependencies, mark);
  const putOut = async (reason: string, why: Why): Promise<Answer> => {
    const isRemoved = await remove(dependencies, mark, presentOf(mark, present), why);
    return isRemoved ? settled('removed', reason) : answerAbsent(dependencies, mark);
  };
  if (verdict.kind === 'allow') {
    if (!present.tracks.some(isDisguised)) return agree(dependencies, mark, present, verdict);
    return putOut('disguised_track', disguise);
  }
  const { reason } = verdict;
  // The room's own question ends it, in one call: also for whoever came in just before.
  if (reason === 'room_closed' || reason === 'schedule_over') {
    await dependencies.store.markIdentities(mark.roomId, [''], mark);
    return settled('asked_room', reason);
  }
  if (reason === 'unknown_room' && dependencies.unknownRooms === 'observe') return settled('observed', reason);
  return putOut(reason, verdict);
};

/**
 * Makes LiveKit agree about one identity. LiveKit's state is read before the facts: its calls name an identity, not a
 * session, and whoever was rightfully added again meanwhile must be judged by the newer facts.
 */
const answerIdentity = async (dependencies: EnforcementDependencies, mark: ClaimedMark): Promise<Answer> => {
  const { store, livekit, gate } = dependencies;
  const { roomId, identity } = mark;
  const listed = await livekit.getParticipant(roomId, identity);
  if (listed === null) return answerAbsent(dependencies, mark);
  if (!isPerson(listed)) return settled('not_a_person', listed.kind);
  const present = await ownedBy(dependencies, roomId, listed);
  const { userId, deviceId, loginId } = present.owner;
  if (userId === null) return settled('observed', 'not_ours');
  const judge = async () => {
    const { facts, nowMs, areFresh } = await readOne(dependencies, { roomId, userId, loginId });
    const dueIdentity = facts.room === null ? identity : identityOf(facts.room, userId, deviceId);
    const request = { purpose: 'stay', identity, dueIdentity, loginEndsAtMs: loginEndOf(present) } as const;
    const verdict = authorise(facts, request, nowMs);
    const replaced = verdict.kind === 'allow' ? replacedBy(facts, userId, identity) : [];
    if (replaced.length > 0) await store.markIdentities(roomId, replaced, mark);
    return { verdict, areFresh };
  };
  const keys = [roomId, userId];
  if (!(await gate.hasReachedKnown(keys))) return later;
  let judged = await judge();
  if (judged.verdict.kind === 'deny' && judged.verdict.evidence === 'absence') {
    if (!(await gate.isCaughtUp(keys))) return later;
    // Judged again: what was applied between the first reading and the sight of the log's end counts.
    judged = await judge();
  }
  if (!(await judged.areFresh())) return later;
  return enforce(dependencies, mark, present, judged.verdict);
};

const observeRemoval = (
  { clock, metrics }: EnforcementDependencies,
  { causedAtMs }: Pick<Mark | ClaimedEdge, 'causedAtMs'>,
): void => metrics.removalSeconds.observe(Math.max(0, clock.now() - causedAtMs) / 1000);

const answerMark = async (dependencies: EnforcementDependencies, mark: ClaimedMark): Promise<void> => {
  const { store, clock, metrics, logger } = dependencies;
  try {
    const answer = await (mark.identity === '' ? answerRoom(dependencies, mark) : answerIdentity(dependencies, mark));
    if (answer.kind === 'later') {
      await store.postponeMark(mark, answer.delayMs, mark.attempts - (answer.isTry ? 0 : 1));
      return;
    }
    const { action, reason, askAgainAtMs, announcement } = answer;
    metrics.answers.inc({ action, reason });
    if (action === 'removed' || action === 'room_deleted') {
      observeRemoval(dependencies, mark);
      logger.info({ room: mark.roomId, identity: mark.identity, action, reason, cause: mark.cause }, 'session ended');
    }
    if (action === 'observed') logger.info({ room: mark.roomId, identity: mark.identity, reason }, 'left as it is');
    if (action === 'permissions_set')
      logger.info({ room: mark.roomId, identity: mark.identity, cause: mark.cause }, 'permissions set');
    // A newer fact may have been answered along with this question: its trace leads here.
    const newerTrace = await store.settleMark(mark, askAgainAtMs, announcement);
    if (newerTrace !== mark.trace) linkActiveSpan(newerTrace);
  } catch (error) {
    metrics.enforcementErrors.inc({ kind: failureOf(error) });
    logger.warn(
      { room: mark.roomId, identity: mark.identity, attempts: mark.attempts, err: error },
      'question could not be answered yet',
    );
    // Where the database is away too, the claim expires by itself.
    await store.postponeMark(mark, delayAfter(error, mark.attempts, clock)).catch(() => {});
  }
};

/** @throws {LivekitError} where somebody is believed to be inside whom LiveKit does not find, as of a question */
const assertNotInside = async ({ store }: EnforcementDependencies, edge: ClaimedEdge): Promise<void> => {
  if (await store.isInside(edge))
    throw new LivekitError('somebody who is believed to be inside was not found', { kind: 'unavailable' });
};

/** Carries out an order that concerns one sid; false where that sid, or its track, is not there any more. */
const carryOut = async (dependencies: EnforcementDependencies, edge: ClaimedEdge & Claim): Promise<boolean> => {
  const { livekit } = dependencies;
  const { roomId, identity, trackSid, reason } = edge;
  const present = await livekit.getParticipant(roomId, identity);
  if (present === null) await assertNotInside(dependencies, edge);
  // Another may have muted the track since, and the person unmuted it.
  assertInTime(dependencies, edge);
  if (present?.sid !== edge.participantSid) return false;
  if (trackSid === null) {
    const isRemoved = await remove(dependencies, edge, edge, { code: 'kicked', message: reason });
    if (isRemoved) observeRemoval(dependencies, edge);
    else await assertNotInside(dependencies, edge);
    return isRemoved;
  }
  if (!present.tracks.some(({ sid }) => sid === trackSid)) return false;
  const isMuted = await livekit.muteTrack(roomId, identity, trackSid);
  if (isMuted) await notify(dependencies, edge, { type: 'muted', trackSid, ...said(reason) });
  else await assertNotInside(dependencies, edge);
  return isMuted;
};

const carryOutEdge = async (dependencies: EnforcementDependencies, edge: ClaimedEdge & Claim): Promise<void> => {
  const { store, clock, metrics, logger } = dependencies;
  const { roomId, identity, kind } = edge;
  try {
    if (await carryOut(dependencies, edge)) {
      metrics.answers.inc({ action: kind, reason: 'requested' });
      logger.info({ room: roomId, identity, kind }, 'order carried out');
    } else {
      // Gone, or here anew: whoever ordered it was answered that it would be carried out.
      metrics.answers.inc({ action: 'absent', reason: kind });
      logger.info({ room: roomId, identity, kind }, 'order has found nobody');
    }
    await store.settleEdge(edge);
  } catch (error) {
    metrics.enforcementErrors.inc({ kind: failureOf(error) });
    logger.warn({ room: roomId, identity, err: error }, 'order could not be carried out yet');
    await store.postponeEdge(edge, delayAfter(error, edgeRetryAttempts, clock)).catch(() => {});
  }
};

/** Whoever ordered it was answered that it would be carried out. */
const dropExpired = async ({ store, metrics, logger }: EnforcementDependencies): Promise<void> => {
  for (const { kind, roomId, identity } of await store.dropExpiredEdges()) {
    metrics.answers.inc({ action: 'expired', reason: kind });
    logger.warn({ room: roomId, identity, kind }, 'order has expired');
  }
};

const inTrace = (name: string, traceparent: string | null, work: () => Promise<void>): Promise<void> =>
  withRemoteParent(traceparent, () => withSpan(name, {}, work));

/**
 * How many questions are being answered at once, and how many orders: those that wait in vain, for a LiveKit node that
 * is silent, leave room for others. Many more would hold up the projection, with which they share the pool of
 * connections.
 */
const atOnce = { questions: 64, orders: 16 };
/** A notification can be missed, and marks become due by time alone. */
const pollEveryMs = 250;

export interface Enforcement {
  /** New marks may be there. */
  readonly wake: () => void;
  /** Claims nothing more and resolves when what is under way is answered. */
  readonly stop: () => Promise<void>;
}

/**
 * Answers marks as they become due, until stopped. A mark is a question, not an order: facts and LiveKit are read when
 * it is answered, whatever its cause said then. Each is answered on its own, with bounded calls.
 */
export const startEnforcement = (dependencies: EnforcementDependencies): Enforcement => {
  const { store, clock, logger } = dependencies;
  const underWay = { questions: new Set<Promise<void>>(), orders: new Set<Promise<void>>() };
  let isStopped = false;
  let woken = Promise.withResolvers<void>();
  /** In turns, so that who is removed now waits for no thousands who are asked about at once, nor they without end. */
  let first: 'oldest' | 'newest' = 'oldest';
  const wake = (): void => woken.resolve();

  const start = (kind: keyof typeof atOnce, work: Promise<void>): void => {
    const done: Promise<void> = work.finally(() => {
      underWay[kind].delete(done);
      wake();
    });
    underWay[kind].add(done);
  };
  const free = (kind: keyof typeof atOnce): number => atOnce[kind] - underWay[kind].size;

  const claim = async (): Promise<void> => {
    await dropExpired(dependencies);
    const claimedAt = thisMoment(clock);
    if (free('orders') > 0)
      for (const edge of await store.claimEdges(free('orders'), claimSeconds))
        start(
          'orders',
          inTrace('enforce order', edge.trace, () => carryOutEdge(dependencies, { ...edge, claimedAt })),
        );
    if (free('questions') > 0) {
      first = first === 'oldest' ? 'newest' : 'oldest';
      for (const mark of await store.claimMarks(free('questions'), claimSeconds, first))
        start(
          'questions',
          inTrace('enforce mark', mark.trace, () => answerMark(dependencies, { ...mark, claimedAt })),
        );
    }
  };

  const run = async (): Promise<void> => {
    while (!isStopped) {
      woken = Promise.withResolvers();
      const answered = new AbortController();
      clock.delay(pollEveryMs, answered.signal).then(wake, () => {});
      await claim().catch((error: unknown) => logger.warn({ err: error }, 'marks could not be claimed'));
      await woken.promise;
      answered.abort();
    }
    await Promise.all([...underWay.questions, ...underWay.orders]);
  };

  const running = run();
  return {
    wake,
    stop: () => {
      isStopped = true;
      wake();
      return running;
    },
  };
};
