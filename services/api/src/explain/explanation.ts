import {
  type ExplainedVerdict,
  type Explanation,
  type FactProvenance,
  problemStatus,
} from '@realtime-service/contracts';
import {
  authorise,
  identityOf,
  type Member,
  type Origin,
  type Session,
  unknownRoom,
  type Verdict,
} from '@realtime-service/room-model';
import type { FactsQuery, Provenance, ProvenFacts, ToldRoom } from '@realtime-service/room-store';
import { assertCurrent, type Freshness } from '../freshness.ts';
import { allowedBy } from '../join/decide-join.ts';
import type { PartitionFreshness } from '../partition-progress.ts';
import { ProblemError } from '../problem.ts';

export type KnownFreshness = Pick<Freshness, 'isCurrent' | 'isLogKnown' | 'ofKey'>;

/** What desk, door and worker decide about a person at this moment, and every fact behind that. */
export const explain = (
  { roomId, userId, loginId }: FactsQuery,
  { answer: { facts, isRoomLive, nowMs }, provenance }: ProvenFacts,
  freshness: KnownFreshness,
): Explanation => {
  const identity = identityOf(facts.room ?? unknownRoom(roomId), userId, null);
  const enter = authorise(facts, { purpose: 'enter', takeOver: false, loginEndsAtMs: null }, nowMs);
  const stay = authorise(facts, { purpose: 'stay', identity, dueIdentity: identity, loginEndsAtMs: null }, nowMs);
  return {
    at: toTimestamp(nowMs),
    roomId,
    userId,
    loginId,
    identity,
    join: toJoinAnswer(() => {
      assertCurrent(freshness, roomId, userId);
      allowedBy(enter, nowMs);
    }),
    enter: toExplainedVerdict(enter),
    stay: toExplainedVerdict(stay),
    freshness: {
      isCurrent: freshness.isCurrent(roomId, userId),
      isLogKnown: freshness.isLogKnown(),
      partition: toPartitionView(freshness.ofKey(roomId)),
      userPartition: toPartitionView(freshness.ofKey(userId)),
    },
    isRoomLive,
    facts: { ...toFactsView(provenance), seats: facts.seats },
  };
};

/** What refuses a join refuses here. */
const toJoinAnswer = (assertAllowed: () => void): Explanation['join'] => {
  try {
    assertAllowed();
    return { status: 200, code: null, reason: null };
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    return { status: problemStatus[error.code], code: error.code, reason: error.reason };
  }
};

const toExplainedVerdict = (verdict: Verdict): ExplainedVerdict => {
  if (verdict.kind === 'allow') {
    const { role, permissions, changesAtMs } = verdict;
    return { isAllowed: true, role, permissions, changesAt: toTimestampOrNull(changesAtMs) };
  }
  const { reason, code, evidence, opensAtMs } = verdict;
  return { isAllowed: false, reason, code, evidence, opensAt: toTimestampOrNull(opensAtMs) };
};

const toPartitionView = (partition: PartitionFreshness | undefined): Explanation['freshness']['partition'] =>
  partition === undefined ? null : { ...partition, lag: Number(partition.lag) };

/** Field by field: of what the rows hold besides, names of people and rooms are nobody's business here. */
const toFactsView = ({
  room,
  member,
  bans,
  user,
  endedLogin,
  suspects,
  sessions,
}: Provenance): Omit<Explanation['facts'], 'seats'> => ({
  room: room && toRoomFacts(room),
  member: member && toMemberFacts(member),
  bans: bans.map(({ privilege, untilMs, isLifted, reason, origin }) => ({
    privilege,
    until: toTimestampOrNull(untilMs),
    isLifted,
    reason,
    provenance: toProvenance(origin),
  })),
  user: user && { isDisabled: user.isDisabled, provenance: toProvenance(user.origin) },
  endedLogin: endedLogin && { provenance: toProvenance(endedLogin.origin) },
  suspects: suspects.map(({ scope, detail, origin }) => ({ scope, detail, provenance: toProvenance(origin) })),
  ownSessions: sessions.map(toSessionFacts),
});

const toRoomFacts = (room: ToldRoom): Explanation['facts']['room'] => ({
  state: room.state,
  access: room.access,
  defaultRole: room.defaultRole,
  isLocked: room.isLocked,
  opensAt: toTimestampOrNull(room.opensAtMs),
  closesAt: toTimestampOrNull(room.closesAtMs),
  maxParticipants: room.maxParticipants,
  devicePolicy: room.devicePolicy,
  closingReason: room.closingReason,
  provenance: toProvenance(room.origin),
});

const toMemberFacts = ({ role, permissions, isRemoved, removalReason, origin }: Member) => ({
  role,
  permissions,
  isRemoved,
  removalReason,
  provenance: toProvenance(origin),
});

const toSessionFacts = (session: Session) => ({
  identity: session.identity,
  deviceId: session.deviceId,
  participantSid: session.participantSid,
  isLive: session.isLive,
  joinedAt: toTimestamp(session.joinedAtMs),
  endedAt: toTimestampOrNull(session.endedAtMs),
  endReason: session.endReason,
  lastFactAt: toTimestamp(session.lastFactAtMs),
});

const toProvenance = ({ eventId, topic, partition, offset, timeMs }: Origin): FactProvenance => ({
  eventId,
  topic,
  partition,
  offset: offset.toString(),
  time: toTimestamp(timeMs),
});

const toTimestamp = (ms: number): string => new Date(ms).toISOString();
const toTimestampOrNull = (ms: number | null): string | null => (ms === null ? null : toTimestamp(ms));
